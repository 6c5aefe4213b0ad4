"""Stored tensors and what a graph computes from them alone."""
