"""Synthetic pedestrians: the renderer, the layouts that it fills, and the dataset."""
