"""A model as a service of the user's systemd: its settings, its plan, its unit and its life."""
