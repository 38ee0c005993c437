"""Healing: a model trained in torch to be the original again, with the seed's bits in the loss.

torch is imported by the modules of this room alone, and they by whoever heals: exporting without it stays possible.
"""
