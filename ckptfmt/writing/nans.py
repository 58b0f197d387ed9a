"""NaNs in what is saved: refused before it takes its name, or told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import NanWarning, fault
from ..format.names import path_label
from ..warning import warn

if TYPE_CHECKING:
    from ..layouts.watch import ElementWatch
    from .request import Request

Nans = Sequence[tuple[str, int]]
SHOWN = 5  # tensors that are named


class NanGuard:
    """What looks at the elements of a save to `path`: `watch`, None if nothing is asked for. `nan`: the labels of
    tensors with NaNs, and how many there are, once that was looked for. Raises `bad-option`."""

    def __init__(self, path: str, statistics: Any, on_nan: Any) -> None:
        if type(statistics) is not bool:
            raise fault("bad-option", "statistics=", path=path, found=statistics, expected="True or False")
        if on_nan not in (None, "warn", "refuse"):
            raise fault("bad-option", "on_nan=", path=path, found=on_nan, expected='None, "warn" or "refuse"')
        self._path, self._on_nan = path, on_nan
        self.nan: Nans = ()
        self.watch = _watch(statistics) if statistics or on_nan is not None else None

    def check(self, made: Request, then: Callable[[], Any] | None) -> None:
        """Look at what was written of a request, before it is committed; raises `has-nan`."""
        if self.watch is not None:
            self.refuse(dict(zip(made.names, map(path_label, made.encoded.paths), strict=True)))
        if then is not None:
            then()

    def refuse(self, labels: Mapping[str, str]) -> None:
        """The same, with the labels of tensors by their names, in the order of the tree."""
        if self.watch is None or self._on_nan is None:
            return
        found = self.watch.nans()
        self.nan = [(label, found[name]) for name, label in labels.items() if name in found]
        if self.nan and self._on_nan == "refuse":
            total = sum(count for _, count in self.nan)
            first = self.nan[0][0]
            raise fault("has-nan", _told(self.nan), path=self._path, tensor=first, found=total, expected=0)


def _watch(statistics: bool) -> ElementWatch:
    from ..layouts.watch import ElementWatch  # here, as most saves look at nothing

    return ElementWatch(all_figures=statistics)


def _told(nan: Nans) -> str:
    shown = [f"{label!r} ({count:,})" for label, count in nan[:SHOWN]]
    more = [f"{len(nan) - SHOWN:,} more"] if len(nan) > SHOWN else []
    return f"{len(nan):,} tensor{'' if len(nan) == 1 else 's'} with NaNs: {', '.join([*shown, *more])}"


def tell_nans(path: str, nan: Nans) -> None:
    """Warn of tensors with NaNs that were saved."""
    if nan:
        warn(NanWarning(f"{path} was saved with {_told(nan)} [has-nan]", tuple(nan)))
