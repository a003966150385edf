"""Datasets in their authors' layouts: the contract, one file a dataset, and what they share."""
