"""ue-bench: a plugin-based benchmark of unlearnable examples."""

__version__ = "0.1.0"
