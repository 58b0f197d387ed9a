"""Pickles of Python, also as joblib writes them: arrays and plain values, of other objects their attributes. Nothing is
unpickled."""

from __future__ import annotations

from ..object_pickle import read_pickle
from ..probe import Probe
from ..source import OpenedSource

PROTOCOLS = range(2, 6)  # that begin with their number


def looks_like(probe: Probe) -> bool:
    return len(probe.head) > 1 and probe.head[0] == 0x80 and probe.head[1] in PROTOCOLS


def read(path: str) -> OpenedSource:
    return read_pickle(path)
