"""The devices that a user names, and the same work on many of them."""
