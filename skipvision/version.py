"""The version of this package, and nothing else: the lowest rooms read it and the build does."""

__version__ = "0.1.0"
