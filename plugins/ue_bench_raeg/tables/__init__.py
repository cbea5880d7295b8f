"""The tables of the RAEG paper: printed numbers in CSV files, and what is measured beside them."""
