"""The tools of the ``vireid`` command, one file each, imported only when they are called."""
