"""The contract with plugins: their base classes, and what they are given to work with."""
