"""Graph passes: a graph in, a graph out."""
