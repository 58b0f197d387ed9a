"""What the calls of the public interface have in common: their options, which of them there are, and what they were
called before."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

from .errors import CkptError, fault
from .near import near, suggestion
from .warning import warn

Call = TypeVar("Call", bound=Callable[..., Any])

LEAVES = "the old name goes with version 2"
_OPTIONS: dict[str, frozenset[str]] = {}  # of each call that has been imported, by its name


def takes(*options: type, **former: str) -> Callable[[Call], Call]:
    """A call whose keyword options, beside those in its signature, are the keys of some TypedDicts. What is no option
    of it raises `bad-option`. `former`: names that options had before, and have now: they are taken, with a
    DeprecationWarning.

    Its signature names every option, for `help` and editors; type checkers read the TypedDicts (`Unpack`).
    """

    def decorate(call: Call) -> Call:
        signature = inspect.signature(call)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        known = {name: hint for one in options for name, hint in one.__annotations__.items()}
        further = {name: hint for name, hint in known.items() if name not in signature.parameters}
        name = called(call)
        _OPTIONS[name] = frozenset({one.name for one in own if one.kind is one.KEYWORD_ONLY} | further.keys())
        given_by_name = {one.name for one in own if one.kind is not one.POSITIONAL_ONLY} | further.keys()

        @wraps(call)
        def checked(*args: Any, **given: Any) -> Any:
            if not given_by_name >= given.keys():
                given = _renamed(name, given, former) if former else given
                refuse_unknown(name, given, given_by_name)
            return call(*args, **given)

        hints = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=hint_of(h))
                 for n, h in further.items()]  # fmt: skip
        checked.__signature__ = signature.replace(parameters=[*own, *hints])  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return decorate


def formerly(new: str) -> Callable[[Call], Call]:
    """What goes on under an old name, with a DeprecationWarning that says the new one."""

    def decorate(call: Call) -> Call:
        @wraps(call)
        def warned(*args: Any, **given: Any) -> Any:
            warn(f"{call.__qualname__} is {new} now; {LEAVES}", DeprecationWarning)
            return call(*args, **given)

        return warned  # type: ignore[return-value]

    return decorate


def called(call: Callable[..., Any]) -> str:
    """The name of a call, as people write it."""
    package = call.__module__.partition(".")[0]
    return f"{package}.{call.__qualname__.removesuffix('.__init__')}"


def hint_of(hint: Any) -> Any:
    """The text of an annotation of a TypedDict."""
    return getattr(hint, "__forward_arg__", hint)


def options_of(call: Callable[..., Any]) -> frozenset[str]:
    """The options that a call takes."""
    return _OPTIONS[called(call)]


def refuse_unknown(call: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises `bad-option` for the options that a call does not have: each with the call that has it, or the nearest
    name."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise _unknown(call, unknown, known)


def _unknown(call: str, unknown: list[str], known: Collection[str]) -> CkptError:
    texts = []
    for name in unknown:
        near_names = near(name, known, 1)
        owners = [other for other, names in _OPTIONS.items() if name in names and other != call]
        whose = f", which is one of {owners[0]}()" if owners and not near_names else ""
        texts.append(f"{name}={whose}{suggestion(f'{one}=' for one in near_names)}")
    advice = f"Options are: {', '.join(sorted(known))}"
    return fault("bad-option", f"{call}() has no option {' and no '.join(texts)}", advice=advice)


def _renamed(call: str, given: Mapping[str, Any], former: Mapping[str, str]) -> dict[str, Any]:
    """Options by their names of today."""
    found = dict(given)
    for old, new in former.items():
        if old not in found:
            continue
        if new in found:
            raise fault("bad-option", f"{call}() has got {old}= and {new}=, which are one option")
        warn(f"{old}= of {call}() is {new}= now; {LEAVES}", DeprecationWarning)
        found[new] = found.pop(old)
    return found
