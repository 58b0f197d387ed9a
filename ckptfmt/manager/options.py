"""The options of a manager's calls, as typed sets for annotations: those of `ckptfmt.save`, `ckptfmt.open` and
`ckptfmt.load`, but for what a manager gives them itself."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..calls import checked_class, count_asked, keys_of, known, named_by
from ..errors import fault
from ..options import LoadOptions
from ..writing.options import FlowOptions, FormOptions, WatchOptions

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..parallel.coordinator import Coordinator
    from ..writing.writer import SaveReport
    from .copies import CopyTo
    from .peer_replicas import Peers
    from .policies import Best
    from .replica_folder import Memory
    from .schedule import Schedule
    from .steps import Number
    from .tracking import LogTo

WhenFull = Literal["wait", "skip"]
AtExit = Literal["wait", "abort"]
By = Literal["thread", "process"]


def one_of(name: str, value: object, *allowed: object) -> None:
    """Refuse an option that is none of these; 0 and 1 are no bools. Raises `bad-option`."""
    if value not in allowed or (isinstance(value, int) and not isinstance(value, bool)):
        raise fault("bad-option", f"{name}=", found=value, expected=" or ".join(map(repr, allowed)))


# ---- the sets


class StepOptions(FormOptions, FlowOptions, WatchOptions, total=False):
    """How a manager saves every step: options of `ckptfmt.save`; `share`, which gives it `share_with`; and `history`,
    the form of older steps."""

    layout: str | None
    storage_options: Mapping[str, Any] | None
    extra: Mapping[str, Any] | None
    check: Callable[[Checkpoint], object] | None
    paged: bool | None
    share: bool
    history: Literal["patches"] | None


class ManagerOptions(StepOptions, total=False):
    """The options of `CheckpointManager` that managers of every kind have."""

    schedule: int | Schedule | None
    background: Background | By | None
    on_commit: Callable[[Number, SaveReport], Any] | LogTo | None
    on_error: Callable[[Number, BaseException], Any] | None
    copy_to: str | os.PathLike[str] | CopyTo | None
    replicas: Memory | Peers | Sequence[Memory | Peers] | None
    coordinator: Coordinator | None
    per_process: bool


class RunOptions(TypedDict, total=False):
    """How a run is opened for reading: the options of `open_run`."""

    best: Best | None
    second: str | os.PathLike[str] | CopyTo | None
    replicas: Memory | Peers | Sequence[Memory | Peers] | None
    coordinator: Coordinator | None
    storage_options: Mapping[str, Any] | None
    follow_links: bool


class TorchOptions(TypedDict, total=False):
    """What `ckptfmt_torch.load` has besides."""

    device: Any
    map_location: Any
    weights_only: bool


class JaxOptions(TypedDict, total=False):
    """What `ckptfmt_jax.load` has besides."""

    sharding: Any


class RestoreOptions(LoadOptions, TorchOptions, JaxOptions, total=False):
    """How a step is restored: options of `ckptfmt.load`, and of the adapter's load that `load=` names."""


# ---- the options of restore

RESTORE = "restore() of a run"
known(RESTORE, keys_of(LoadOptions) | {"which", "fallback", "load"}, __name__)
known("restore(load=ckptfmt_torch.load)", keys_of(TorchOptions), __name__)
known("restore(load=ckptfmt_jax.load)", keys_of(JaxOptions), __name__)


def options_of(load: Callable[..., Any]) -> frozenset[str] | None:
    """The options that a call which loads takes; None if only the call itself can tell."""
    try:
        parameters = inspect.signature(load).parameters.values()
    except (TypeError, ValueError):
        return None
    if not any(one.kind is one.VAR_KEYWORD for one in parameters):
        return named_by(load)
    called = load.func if isinstance(load, functools.partial) else load
    room = str(getattr(called, "__module__", None)).partition(".")[0]
    return named_by(load) | keys_of(LoadOptions) if room.startswith("ckptfmt") else None


# ---- a small class of options


@checked_class
@dataclass(frozen=True, slots=True)
class Background:
    """How a manager saves in the background (`save(block=False)`).

    `max_in_flight`: most saves that are unfinished, each of which takes the memory of one copy of the tree.
    `when_full`: the next one has to "wait" or "skip". `at_exit`: what `close`, and the end of the process, do with
    those in flight: "wait", or "abort": what has not begun is dropped, and what is being written is lost whole if the
    process ends first.

    `by`: a "thread" of the program writes, or another "process", which does not keep a program in pure Python from
    running meanwhile. That needs options that are plain values, no `check=`, and nobody to save together with; `nice`
    is by how much it gives way to others, as of `os.nice`.

    Raises `InputError` (`bad-option`).
    """

    max_in_flight: int = 1
    when_full: WhenFull = "wait"
    at_exit: AtExit = "wait"
    by: By = "thread"
    nice: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_in_flight", count_asked("max_in_flight=", self.max_in_flight))
        one_of("when_full", self.when_full, "wait", "skip")
        one_of("at_exit", self.at_exit, "wait", "abort")
        one_of("by", self.by, "thread", "process")
        object.__setattr__(self, "nice", count_asked("nice=", self.nice, 0))


def background_asked(background: Any) -> Background:
    """What `background=` means; raises `bad-option`."""
    if background is None:
        return Background()
    if isinstance(background, str):
        one_of("background", background, "thread", "process")
        return Background(by=background)  # type: ignore[arg-type]  # it is one of these
    if not isinstance(background, Background):
        expected = 'Background(...), "thread" or "process"'
        raise fault("bad-option", "background=", found=type(background).__name__, expected=expected)
    return background
