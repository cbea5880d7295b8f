"""Stages: the pieces of work that a cell is made of, one class a kind."""
