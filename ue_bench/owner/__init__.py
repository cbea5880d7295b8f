"""Protect, recover and audit folders of images for a data owner."""
