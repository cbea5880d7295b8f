"""What a plugin is, and what it is given to work with."""
