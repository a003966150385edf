"""What the `vireid` command runs."""
