"""Between trees of any framework's tensors and the core: adapters, what they hand over, what they have filled."""

from __future__ import annotations


class Lazy:
    """Base of the sources that are not arrays: whatever derives from it stands in a tree as a tensor."""

    __slots__ = ()
