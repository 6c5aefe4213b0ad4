"""Where insert-qdq quantizes, and at which scales."""
