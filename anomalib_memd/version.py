"""Version of this package."""

__version__ = "0.15.2"
