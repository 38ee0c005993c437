"""Rebuilds a seed's model: the decoded weights, the folder that holds them, and the cache of such folders."""
