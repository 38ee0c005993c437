"""This release. The build reads it from here, so that the runtime need not load package metadata to know it."""

__version__ = "0.1.0"
