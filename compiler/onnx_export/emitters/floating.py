"""Operators that stay in float on every level: comparisons, selections, sorting."""
