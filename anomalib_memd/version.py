"""Version of this package."""

__version__ = "0.5.0"
