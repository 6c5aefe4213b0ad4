"""One module for each kind of operator: a node of the integer graph to kernel calls."""
