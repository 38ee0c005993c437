"""A model as a service of the user's systemd."""
