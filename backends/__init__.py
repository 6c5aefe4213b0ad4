"""Backends: an integer graph in, a runnable artifact out."""
