"""Chooses how each weight is coded: plans, steps, rounding, sizes."""
