"""Tensors of a target's objects that take the memory of mappings in place of their own: nothing is read for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from ..errors import fault
from ..format.names import Path, path_label
from ..frameworks.adapter import Slot
from ..frameworks.receiving import Adopt, Intake
from .blocks import BlockReader
from .mapping import mapped
from .tensor import Tensor, is_tensor


class Adopted:
    """Which tensors are mapped. `others` are those that are filled: what is computed, compressed, cast, or the same
    stored tensor once more, as no two tensors of a target are to share memory."""

    def __init__(
        self,
        slots: Mapping[Path, Slot | None],
        intakes: Iterable[Intake],
        stored: Mapping[Path, Any],
        origin: Callable[[Any], Tensor | None],
        checkpoint: str,
    ) -> None:
        """Raises `bad-option` for tensors of a target that are no object's."""
        intakes = list(intakes)
        inside = {path for intake in intakes for path in intake.direct}
        bare = [path for path, found in slots.items() if found is not None and path not in inside]
        if bare or not intakes:
            others = ", ".join(path_label(path) or "the root" for path in bare[:8]) or "none"
            what = f"mmap=True maps the tensors of modules, and into= has others: {others}"
            way = "Load without into= to get mapped tensors, or without mmap=True"
            raise fault("bad-option", what, path=checkpoint, advice=way)
        self._adopts: dict[int, Adopt] = {}  # by the number of the stored tensor
        self.others = dict(slots)
        taken: dict[Hashable, int] = {}
        for path, adopt in ((path, adopt) for intake in intakes for path, adopt in intake.adopt().items()):
            tensor, found = stored.get(path), slots.get(path)
            tensor = origin(tensor) if is_tensor(tensor) else None
            if tensor is None or found is None or tensor.dtype != found.dtype or tensor.shape != found.shape:
                continue
            if not (tensor.spec.is_contiguous and tensor.spec.chunks and tensor.spec.dtype.stored.isnative):
                continue
            number = taken.setdefault(adopt.owner, tensor.index)
            if self._adopts.setdefault(number, adopt).owner == adopt.owner:
                del self.others[path]
        self._arrays: dict[int, Any] = {}

    def map(self, blocks: BlockReader, verify: bool) -> None:
        """Map them, and read and verify what is mapped if that is asked for; changes nothing."""
        self._arrays = mapped(blocks, self._adopts, verify)

    def hand_over(self) -> None:
        for number, array in self._arrays.items():
            self._adopts[number].take(array)
