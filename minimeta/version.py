"""The version of minimeta."""

__version__ = "0.1.0"
