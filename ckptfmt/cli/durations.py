"""Durations as people write them: 30m, 24h, 7d."""

from __future__ import annotations

import re

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])").fullmatch


def parsed(text: str) -> float:
    """The seconds of a duration; raises `click.BadParameter`."""
    found = _DURATION(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not like 30m, 24h or 7d")
    return float(found[1]) * _UNITS[found[2]]


def words(seconds: float) -> str:
    """A duration in its largest unit."""
    unit = next((unit for unit in "dhm" if seconds >= _UNITS[unit]), "s")
    return f"{max(0, int(seconds / _UNITS[unit]))} {unit}"
