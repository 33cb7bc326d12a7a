"""The node agent of the Boreas continuous deployment platform."""

__version__ = "0.1.0"
