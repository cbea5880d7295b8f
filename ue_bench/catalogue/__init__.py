"""Finding plugins, boards and protocols, and the selectors that name them."""
