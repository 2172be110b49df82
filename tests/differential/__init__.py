"""Random applications for Flask-Limiter and for Weir, which must answer alike."""
