"""A board and selectors, the cells they stand for, the stages of these cells, and what is missing."""
