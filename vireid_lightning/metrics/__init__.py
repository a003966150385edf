"""Ranking, protocols, the retrieval metric and re-ranking."""
