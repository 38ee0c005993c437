"""One push: what is checked before, what is installed, what is sent."""
