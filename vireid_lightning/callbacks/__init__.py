"""Callbacks that every method shares."""
