"""Converters, to be written next."""
