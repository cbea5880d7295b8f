"""The training and evaluation loop, and the recipes it follows."""
