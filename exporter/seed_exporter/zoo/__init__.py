"""Recipes for ready seeds of public models: `seed-export zoo` lists them, `seed-export zoo:NAME` follows one.

A recipe names pinned wheels of PyPI, and makes a model with its processing of them. One file a recipe, and one line in
registry.py. Listing needs neither the network nor ONNX.
"""
