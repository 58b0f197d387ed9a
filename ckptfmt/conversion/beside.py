"""Files that a model names, which hold some of its tensors."""

from __future__ import annotations

import os

from ..errors import fault
from ..format.dtypes import Array
from .claims import shown
from .source import mapped_file


class FilesBeside:
    """The files in a folder and below, mapped when they are asked for. Names lead on from `base`, which lies in it."""

    def __init__(self, folder: str, base: str = "") -> None:
        self._folder, self._base = folder, base
        self._mapped: dict[str, Array] = {}

    @property
    def size(self) -> int:
        """Bytes of all that were asked for."""
        return sum(data.size for data in self._mapped.values())

    def has(self, location: str) -> bool:
        """Whether there is such a file."""
        return "\0" not in location and os.path.lexists(os.path.join(self._folder, self._base, location))

    def bytes_of(self, location: str, name: str) -> Array:
        """All bytes of a file, in which the tensor of a name lies; raises `unsafe-source` where it lies outside, and
        `bad-source` where it is missing."""
        if not location or "\0" in location:
            raise ValueError(f"the tensor {shown(name)} lies in the file {shown(location)}")
        place = os.path.normpath(os.path.join(self._base, location))
        if os.path.isabs(place) or place.split(os.sep)[0] == os.pardir:
            message = f"the tensor {shown(name)} lies at {shown(location)}, outside of the folder of the model"
            raise fault("unsafe-source", message, tensor=name)
        if place not in self._mapped:
            path = os.path.join(self._folder, place)
            if not os.path.lexists(path):
                message = f"the file {shown(location)} is missing, in which {shown(name)} lies"
                raise fault("bad-source", message, tensor=name, advice="Put it where the model names it, and try again")
            self._mapped[place] = mapped_file(path, self._folder)
        return self._mapped[place]
