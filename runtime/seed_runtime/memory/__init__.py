"""Memory: what this process has, what a session was measured to need, and the plan made of both."""
