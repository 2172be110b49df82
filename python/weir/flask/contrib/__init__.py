"""Recipes that Flask-Limiter has under this name."""
