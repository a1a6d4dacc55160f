"""Version of this package."""

__version__ = "0.16.2"
