"""The options of a manager's calls: typed sets for annotations, and the check that refuses what a call does not have.

The sets are those of `ckptfmt.save`, `ckptfmt.open` and `ckptfmt.load`, but for what a manager gives them itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict, TypeVar

from ..errors import fault
from ..near import did_you_mean

if TYPE_CHECKING:
    from ..format.limits import Limits
    from ..format.manifest import Schema
    from ..format.names import Key, Path
    from ..format.tree import Tree
    from ..frameworks.adapter import Adapter
    from ..frameworks.target import MatchReport
    from ..migration.operators import Extern
    from ..parallel.coordinator import Coordinator
    from ..patterns import Patterns
    from ..progress import Progress
    from ..writing.request import Compression
    from ..writing.writer import Check, SaveReport
    from .copies import CopyTo
    from .schedule import Schedule
    from .steps import Number

P = ParamSpec("P")
T = TypeVar("T")

WhenFull = Literal["wait", "skip"]
AtExit = Literal["wait", "abort"]


def one_of(name: str, value: object, *allowed: object) -> None:
    """Refuse an option that is none of these; 0 and 1 are no bools. Raises `bad-option`."""
    if value not in allowed or (isinstance(value, int) and not isinstance(value, bool)):
        raise fault("bad-option", f"{name}=", found=value, expected=" or ".join(map(repr, allowed)))


# ---- the sets


class SaveOptions(TypedDict, total=False):
    """How a manager saves every step: options of `ckptfmt.save`."""

    layout: str | None
    compression: Compression | Mapping[str, Compression]
    schema: Schema | tuple[str, str] | None
    durable: bool
    digest: str
    progress: Progress | None
    storage_options: Mapping[str, Any] | None
    max_bytes_in_flight: int
    extra: Mapping[str, Any] | None
    check: Check | None
    skip: Patterns


class ManagerOptions(SaveOptions, total=False):
    """The options of `CheckpointManager` that managers of every kind have."""

    schedule: int | Schedule | None
    background: Background | None
    on_commit: Callable[[Number, SaveReport], Any] | None
    on_error: Callable[[Number, BaseException], Any] | None
    copy_to: str | CopyTo | None
    coordinator: Coordinator | None
    per_process: bool


class OpenOptions(TypedDict, total=False):
    """How a step is opened: options of `ckptfmt.open` that give a `Checkpoint`."""

    prefix: Key | Path | None
    strip_prefix: str | Iterable[str] | None
    add_prefix: str | None
    verify: bool
    limits: Limits
    storage_options: Mapping[str, Any] | None
    follow_links: bool


class LoadOptions(TypedDict, total=False):
    """How a step is loaded: options of `ckptfmt.load`."""

    prefix: Key | Path | None
    strip_prefix: str | Iterable[str] | None
    add_prefix: str | None
    select: Patterns
    into: Tree
    like: Tree
    framework: str | Adapter | None
    mmap: bool
    verify: bool | None
    strict: bool
    cast: bool
    progress: Progress | None
    max_bytes_in_flight: int
    on_match: Callable[[MatchReport], None] | None
    limits: Limits
    storage_options: Mapping[str, Any] | None
    follow_links: bool
    schema: str | None
    migrations: Any
    source_schema: Schema | tuple[str, str] | None
    down: bool
    lossy: bool
    parameters: Mapping[str, int] | None
    externs: Mapping[str, Extern] | None


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


# ---- what refuses others


def keys_of(options: type | None) -> frozenset[str]:
    """The names of a TypedDict's entries."""
    return frozenset(getattr(options, "__optional_keys__", ()))


RESTORE = "restore() of a run"
_CALLS: dict[str, frozenset[str]] = {  # the options of each call that checks them, by its name in messages
    RESTORE: keys_of(LoadOptions) | {"which", "fallback", "load"},
    "restore(load=ckptfmt_torch.load)": keys_of(TorchOptions),
    "restore(load=ckptfmt_jax.load)": keys_of(JaxOptions),
}


def checks_options(more: type | None = None, *, name: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """What has a call raise `bad-option`, which names the call and what is near, for an option that it does not have.
    `more`: the TypedDict of those that it takes as `**options`. `name`: what messages call it, if not by its own."""

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        known = name or call.__qualname__.removesuffix(".__init__")
        has = _CALLS[known] = _named(call) | keys_of(more)

        @functools.wraps(call)
        def checked(*arguments: P.args, **options: P.kwargs) -> T:
            if not options.keys() <= has:
                refuse_others(known, options, has)
            return call(*arguments, **options)

        return checked

    return decorate


def checked_class(cls: type[T]) -> type[T]:
    """The same for a class, whose options are those of making one."""
    cls.__init__ = checks_options()(cls.__init__)  # type: ignore[method-assign]
    return cls


def refuse_others(call: str, given: Iterable[str], has: frozenset[str]) -> None:
    """Raise `bad-option` for the first option that a call does not have: with near names, or the calls that have it."""
    for name in given:
        if name not in has:
            owners = " and ".join(owner for owner, names in _CALLS.items() if name in names and owner != call)
            hint = did_you_mean(name, has) or (owners and f"; it is one of {owners}")
            raise fault("bad-option", f"{call} has no option {name!r}{hint}")


def options_of(load: Callable[..., Any]) -> frozenset[str] | None:
    """The options that a call which loads takes; None if only the call itself can tell."""
    try:
        parameters = inspect.signature(load).parameters.values()
    except (TypeError, ValueError):
        return None
    if not any(one.kind is one.VAR_KEYWORD for one in parameters):
        return _named(load)
    called = load.func if isinstance(load, functools.partial) else load
    room = str(getattr(called, "__module__", None)).partition(".")[0]
    return _named(load) | keys_of(LoadOptions) if room.startswith("ckptfmt") else None


def _named(call: Callable[..., Any]) -> frozenset[str]:
    """The parameters of a call that may be given by name."""
    found = inspect.signature(call).parameters.values()
    names = {one.name for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return frozenset(names - {"self"})


# ---- a small class of options


@checked_class
@dataclass(frozen=True, slots=True)
class Background:
    """How a manager saves in the background (`save(block=False)`).

    `max_in_flight`: most saves that are unfinished, each of which takes the memory of one copy of the tree.
    `when_full`: the next one has to "wait" or "skip". `at_exit`: what `close`, and the end of the process, do with
    those in flight: "wait", or "abort": what has not begun is dropped, and what is being written is lost whole if the
    process ends first.

    Raises `InputError` (`bad-option`).
    """

    max_in_flight: int = 1
    when_full: WhenFull = "wait"
    at_exit: AtExit = "wait"

    def __post_init__(self) -> None:
        if type(self.max_in_flight) is not int or self.max_in_flight < 1:
            raise fault("bad-option", "max_in_flight=", found=self.max_in_flight, expected="1 or more")
        one_of("when_full", self.when_full, "wait", "skip")
        one_of("at_exit", self.at_exit, "wait", "abort")
