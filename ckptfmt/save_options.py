"""The options of `ckptfmt.save`, as a type: `def store(path, tree, **options: Unpack[SaveOptions])`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .writing.options import WriteOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from .checkpoint import Checkpoint
    from .parallel.coordinator import Coordinator


class SaveOptions(WriteOptions, total=False):
    """What is saved, how and where; see `ckptfmt.save`."""

    coordinator: Coordinator | None
    share_with: str | os.PathLike[str] | None
    check: Callable[[Checkpoint], object] | None
