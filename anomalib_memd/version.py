"""Version of this package."""

__version__ = "0.14.0"
