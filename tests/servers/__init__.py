"""Real servers for tests, each on a loopback port of its own, each stopped by its process id."""
