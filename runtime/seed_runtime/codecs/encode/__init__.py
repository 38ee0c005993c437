"""Encoders that a device needs as well, as it writes delta seeds: NumPy and the standard library alone.

`contexts`, `matrix`, `tables`, `lanes` and `symbols` make streams of symbols, `grid` and `split` make symbols of
weights, `raw` codes bytes, `packing` packs them. Encoding stays within the memory that `symbols` states.
"""
