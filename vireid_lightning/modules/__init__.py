"""Networks' parts that the methods are built from."""
