"""Real servers for tests, each on its own loopback port, each stopped by its process id."""
