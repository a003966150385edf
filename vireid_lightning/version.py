"""The package's version, in a file that imports nothing, so that whatever writes it into a file can read it."""

__version__ = "0.1.0"
