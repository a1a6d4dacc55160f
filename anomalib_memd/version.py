"""Version of this package."""

__version__ = "0.13.0"
