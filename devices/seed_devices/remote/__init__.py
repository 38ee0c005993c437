"""What runs on the device on behalf of this machine, and what it answers."""
