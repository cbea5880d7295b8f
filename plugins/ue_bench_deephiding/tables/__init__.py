"""The tables of the Deep Hiding paper: printed numbers in CSV files, and what is measured beside them."""
