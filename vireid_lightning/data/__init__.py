"""Datasets, samples, batches and the cross-modality DataModule."""
