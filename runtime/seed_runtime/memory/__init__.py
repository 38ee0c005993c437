"""Memory plans: what a session needs, what this process has, and whether both fit a limit."""
