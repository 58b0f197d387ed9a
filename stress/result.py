"""What a run found."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """`counts`: what was done, in words. `bad`: what must not be, one text for each time."""

    counts: str
    bad: list[str]
