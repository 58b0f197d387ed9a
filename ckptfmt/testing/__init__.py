"""For the tests of programs that use ckptfmt: equality of trees, and other disks. `ckptfmt.testing.strategies` has
trees, arrays and indices for hypothesis; `recording` and `crash_states` say what a power loss may leave."""

from .equality import assert_same_tree, equal_trees, first_difference
from .recording import using_disk

__all__ = ["assert_same_tree", "equal_trees", "first_difference", "using_disk"]
