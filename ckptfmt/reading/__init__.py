"""From a path to the tree: which blocks hold what is asked for, read and verified."""
