"""The commands ``lightning`` and ``vireid``."""
