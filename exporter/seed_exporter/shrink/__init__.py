"""Structural shrinking: dead channels, heads, neurons and emptied blocks are cut out of a graph."""
