"""For the tests of programs that use ckptfmt: equality of trees. `ckptfmt.testing.strategies` has trees, arrays and
indices for hypothesis."""

from .equality import assert_same_tree, equal_trees, first_difference

__all__ = ["assert_same_tree", "equal_trees", "first_difference"]
