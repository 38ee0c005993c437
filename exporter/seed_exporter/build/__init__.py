"""Streams and skeleton put together as a seed."""
