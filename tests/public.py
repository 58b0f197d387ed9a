"""The public names of all packages, and the calls among them: functions, classes, and the methods of classes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

HOMES = tuple(
    home
    for home in (
        *("ckptfmt", "ckptfmt.manager", "ckptfmt.recompute", "ckptfmt.testing"),
        *("ckptfmt_torch", "ckptfmt_torch.recompute", "ckptfmt_jax", "ckptfmt_numpy"),
    )
    if find_spec(home.partition(".")[0].removeprefix("ckptfmt_"))  # those whose framework is here
)
OPTIONAL = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """A public call: what `help` shows of it, and for a method the class whose it is."""

    name: str
    call: Callable[..., Any]
    owner: type | None = None

    @property
    def text(self) -> str:
        return inspect.getdoc(self.call) or ""

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """What may be left out, or is given by its name alone; those of typed sets, too."""
        found = inspect.signature(self.call).parameters.values()
        return {
            one.name: one
            for one in found
            if one.kind is one.KEYWORD_ONLY or (one.kind in OPTIONAL and one.default is not one.empty)
        }


def names(home: str) -> Iterator[tuple[str, Any]]:
    """Each public name of a package with what it is."""
    module = importlib.import_module(home)
    for name in module.__all__:
        yield f"{home}.{name}", getattr(module, name)


def calls() -> Iterator[Call]:
    """Every public call, once; not errors, and not the typed sets of options."""
    seen: set[int] = set()
    for home in HOMES:
        for name, value in names(home):
            if not callable(value) or id(value) in seen:
                continue
            seen.add(id(value))
            if not inspect.isclass(value):
                yield Call(name, value)
            elif not issubclass(value, BaseException | dict):
                yield Call(name, value)
                for method, found in inspect.getmembers(
                    value, lambda one: inspect.isfunction(one) or inspect.ismethod(one)
                ):
                    if method[:1] != "_":
                        yield Call(f"{name}.{method}", found, value)


CALLS = {one.name: one for one in calls()}


def misspelt(name: str) -> str:
    """With two letters changed about."""
    return f"{name[:-2]}{name[-1]}{name[-2]}" if name[-1:] != name[-2:-1] and name[1:] else 2 * name
