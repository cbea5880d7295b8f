"""Find plugins, boards, protocols and tables, and read the selectors that name them."""
