"""Version of this package."""

__version__ = "0.11.0"
