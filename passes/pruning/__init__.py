"""What prune-channels is made of: which channels belong together, what they cost and matter."""
