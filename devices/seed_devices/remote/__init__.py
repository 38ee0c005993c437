"""Programs that run on a device for this machine, the clients that talk to them, and the check of their answers."""
