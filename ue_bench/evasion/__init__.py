"""Evasion: classifiers that were trained on clean images are shown protected test images."""
