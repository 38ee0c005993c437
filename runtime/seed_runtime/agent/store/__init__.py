"""The models that were pushed to this device, on its disk."""
