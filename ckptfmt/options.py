"""Options that a call does not have: one error, which names the call, and the nearest right name or the calls that have
the option."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from .errors import fault
from .near import did_you_mean

P = ParamSpec("P")
T = TypeVar("T")

_CALLS: dict[str, frozenset[str]] = {}  # the options of each call, by its name in messages


def known(call: str, options: frozenset[str]) -> frozenset[str]:
    """Have errors point at a call that has these options, where another is given one; gives them."""
    _CALLS[call] = options
    return options


def checks_options(more: type | None = None, *, name: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """What has a call raise `bad-option` for an option that it does not have, before anything else. `more`: the
    TypedDict of those that it takes as `**options`. `name`: what messages call it, if not by its own."""

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        title = name or call.__qualname__.removesuffix(".__init__")
        has = known(title, named_by(call) | keys_of(more))

        @functools.wraps(call)
        def checked(*arguments: P.args, **options: P.kwargs) -> T:
            if not options.keys() <= has:
                refuse_others(title, options, has)
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
            near = did_you_mean(name, has)
            hint = near + (owners and f"{' It' if near else '; it'} is one of {owners}")
            raise fault("bad-option", f"{call} has no option {name!r}{hint}")


def named_by(call: Callable[..., object]) -> frozenset[str]:
    """The parameters of a call that may be given by name."""
    found = inspect.signature(call).parameters.values()
    names = {one.name for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return frozenset(names - {"self"})


def keys_of(options: type | None) -> frozenset[str]:
    """The names of a TypedDict's entries."""
    return frozenset(getattr(options, "__optional_keys__", ()))
