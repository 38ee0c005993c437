"""The header's sections, one file each: how its payload is read and written, and the record that it makes.

A new section is one file here and one field of `Header` (header.py), which says where the section's value lands.
"""
