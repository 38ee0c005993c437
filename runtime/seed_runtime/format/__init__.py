"""The seed's file format (SPEC.md): preamble, header and its sections, parts, packings; reading and writing."""
