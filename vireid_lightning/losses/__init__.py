"""Losses, one a file, as functions on tensors."""
