"""From a tree to one checkpoint, published whole."""
