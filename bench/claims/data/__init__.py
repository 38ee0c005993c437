"""Data of the claims, made from pinned Debian packages; `python -m bench.claims.data --help` lists the sets.

Every set is split by source (font package, source package), never by sample, and what is held out isn't read
by anything that is trained or chosen.
"""
