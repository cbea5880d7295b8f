"""Tables of other benchmarks and papers that compare protectors: printed numbers in CSV files."""
