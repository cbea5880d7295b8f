"""Purifiers that add noise to images and let a diffusion model take it away, and the training of such models."""
