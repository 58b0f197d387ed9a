"""Warnings that point at the line of the program that called this package."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# of these are the frames between a warning and the program: this package, its adapters, and what calls them for it
_BETWEEN = frozenset(
    {"ckptfmt", "ckptfmt_jax", "ckptfmt_numpy", "ckptfmt_torch", "contextlib", "functools", "importlib"}
    | {"jax", "lightning", "pytorch_lightning", "torch", "transformers"}
)


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """As `warnings.warn`, from the nearest frame of the program; on a thread of this package, from its first."""
    frame = sys._getframe(1)
    while _is_between(frame) and frame.f_back is not None:
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__", "sys"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_between(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _BETWEEN
