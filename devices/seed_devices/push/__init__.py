"""One push to one device: what is checked before, what is installed, and what is sent."""
