"""Weights that the methods' authors published: one file a release, and the importer."""
