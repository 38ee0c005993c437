"""Which devices, and the same work on many of them."""
