"""How many snapshots a budget is: a count, or bytes."""

from __future__ import annotations

import re

from ..calls import integer_of
from ..errors import fault
from .schedules import UNLIMITED

SnapshotBudget = int | str | None  # snapshots; bytes as "512MiB" or "2GB"; "unlimited"; none

UNITS = {"B": 1}
UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)}
UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}
_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKMGT]?i?B)").fullmatch


def bytes_in(name: str, budget: int | str) -> int:
    """The bytes that an option gives, as a number or "512MiB". Raises `bad-option`."""
    found = _BYTES(budget) if isinstance(budget, str) else None
    if found is not None and found[2] in UNITS:
        return int(float(found[1]) * UNITS[found[2]])
    count = integer_of(budget)
    if count is None or count < 0:
        raise fault("bad-option", f"{name}=", found=repr(budget), expected='bytes, as an int or as "512MiB"')
    return count


def snapshots_in(name: str, budget: SnapshotBudget, size: int) -> int:
    """The snapshots of so many bytes that a budget is enough for; `name` is its option. Raises `bad-option`."""
    if budget is None:
        return 0
    if budget == "unlimited":
        return UNLIMITED
    found = _BYTES(budget) if isinstance(budget, str) else None
    if found is not None and found[2] in UNITS:
        count = int(float(found[1]) * UNITS[found[2]]) // max(size, 1)
        if not count:
            expected = f"at least {size:,} bytes, as one snapshot takes"
            raise fault("bad-option", f"{name}= is not enough for one snapshot", found=budget, expected=expected)
        return min(count, UNLIMITED)
    snapshots = integer_of(budget)
    if snapshots is None or snapshots < 0:
        expected = 'snapshots as an int, bytes such as "512MiB", or "unlimited"'
        raise fault("bad-option", f"{name}=", found=repr(budget), expected=expected)
    return snapshots
