"""`seed-deploy`: seeds on devices, over SSH."""
