"""Version of this package."""

__version__ = "0.6.0"
