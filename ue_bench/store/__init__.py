"""Artifacts and results on disk."""
