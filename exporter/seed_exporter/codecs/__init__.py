"""Encode sides, with the same file stems as the decoders in `seed_runtime.codecs`."""
