"""Graphs without weights, one file a kind."""
