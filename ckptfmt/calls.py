"""What the calls of the public interface have in common: which options they have, and which those were before."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import fault

if TYPE_CHECKING:
    import inspect

Call = TypeVar("Call", bound=Callable[..., Any])
T = TypeVar("T")
FIRST = frozenset({"self", "cls", "_cls"})  # what a method is called with

# of each call that has been imported, by its name in messages: its options, and the package that it stands in
_CALLS: dict[str, tuple[Callable[[], frozenset[str]], str]] = {}
_CLASSES: set[str] = set()  # those of them that make an object of options


def integer_of(value: Any) -> int | None:
    """The int that a value is, or is as good as, such as one of NumPy; None for anything else, and for bools."""
    try:
        return None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        return None


def count_asked(name: str, value: Any, least: int = 1) -> int:
    """What an option comes to that counts; raises `bad-option`."""
    found = integer_of(value)
    if found is None or found < least:
        raise fault("bad-option", name, found=value, expected=f"an int, {least} or more")
    return found


def takes(*options: type | str, name: str = "", former: Mapping[str, str] | None = None) -> Callable[[Call], Call]:
    """A call whose keyword options are those in its signature and the keys of some TypedDicts. What is no option of it
    raises `bad-option`, before anything else. `name`: what messages call it, if not by its own. `former`: names that
    options had before, and have now: they go on, with a DeprecationWarning.

    A TypedDict may be named ("ckptfmt.options.OpenOptions"): it is imported once an option is given. The signature of
    the call names every option, for `help` and editors; type checkers read the TypedDicts (`Unpack`).
    """

    def decorate(call: Call) -> Call:
        title = name or _title(call)
        described = _Described(call, options)
        _know(title, described.names, call.__module__)

        @wraps(call)
        def checked(*arguments: Any, **given: Any) -> Any:
            if given and not given.keys() <= (has := described.names()):
                given = _renamed(title, given, former or {})
                refuse_others(title, given, has)
            return call(*arguments, **given)

        checked.__wrapped__ = described
        return checked  # type: ignore[return-value]

    return decorate


class _Described:
    """What a call takes, found when somebody asks: most programs give few options, and look at no signature. `inspect`
    finds it in the place of the call that is wrapped."""

    __slots__ = ("__wrapped__", "_names", "_options")

    def __init__(self, call: Callable[..., Any], options: tuple[type | str, ...]) -> None:
        self.__wrapped__ = call
        self._options = options
        self._names: frozenset[str] | None = None

    def names(self) -> frozenset[str]:
        """The options."""
        if self._names is None:
            self._names = named_by(self)
        return self._names

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect  # here, as opening and reading a slice need none of it

        signature = inspect.signature(self.__wrapped__)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        hints = {key: hint for one in map(_imported, self._options) for key, hint in one.__annotations__.items()}
        further = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=_text(hint))
            for key, hint in hints.items()
            if key not in signature.parameters
        ]
        return signature.replace(parameters=[*own, *further])

    def __call__(self, *arguments: Any, **given: Any) -> Any:
        return self.__wrapped__(*arguments, **given)


def checked_class(cls: type[T]) -> type[T]:
    """The same for a class, whose options are those of making one."""
    _CLASSES.add(cls.__qualname__)
    if issubclass(cls, tuple):
        cls.__new__ = takes(name=cls.__name__)(cls.__new__)  # type: ignore[method-assign]
    else:
        cls.__init__ = takes()(cls.__init__)  # type: ignore[method-assign]
    return cls


def known(call: str, options: frozenset[str], module: str) -> None:
    """Have errors point at a call that has these options, where another is given one."""
    _know(call, lambda: options, module)


def _know(call: str, options: Callable[[], frozenset[str]], module: str) -> None:
    _CALLS[call] = options, module.rpartition(".")[0]


def _imported(options: type | str) -> type:
    """A TypedDict that may be named."""
    if not isinstance(options, str):
        return options
    module, _, name = options.rpartition(".")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]


def refuse_others(call: str, given: Iterable[str], has: Collection[str]) -> None:
    """Raise `bad-option` for the first option that a call does not have: with near names, or the calls that have it."""
    from .near import did_you_mean  # here, as it is seldom needed

    for name in given:
        if name not in has:
            near, owners = did_you_mean(name, has), " and ".join(_owners(name, call))
            hint = near + (f"{' It' if near else '; it'} is one of {owners}" if owners else "")
            raise fault("bad-option", f"{call} has no option {name!r}{hint}")


def _owners(option: str, call: str) -> list[str]:
    """The calls that have an option which another does not have: at most three, those of its own package first, and
    small classes of options last."""
    package = _CALLS[call][1] if call in _CALLS else ""
    owners = [other for other, (has, _) in _CALLS.items() if option in has() and other != call]
    return sorted(owners, key=lambda other: (_CALLS[other][1] != package, other in _CLASSES))[:3]


def named_by(call: Callable[..., object]) -> frozenset[str]:
    """The parameters of a call that may be given by name."""
    import inspect  # here, as opening and reading a slice need none of it

    found = inspect.signature(call).parameters.values()
    names = {one.name for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return frozenset(names - FIRST)


def keys_of(options: type) -> frozenset[str]:
    """The names of a TypedDict's entries."""
    return frozenset(options.__annotations__)


def formerly(new: str) -> Callable[[Call], Call]:
    """What goes on under an old name, with a DeprecationWarning that says the new one."""

    def decorate(call: Call) -> Call:
        @wraps(call)
        def warned(*arguments: Any, **given: Any) -> Any:
            from .deprecated import warn_deprecated

            warn_deprecated(call.__qualname__, new)
            return call(*arguments, **given)

        return warned  # type: ignore[return-value]

    return decorate


def _title(call: Callable[..., Any]) -> str:
    name = call.__qualname__.removesuffix(".__init__")
    return name if "." in name or name[:1].isupper() else f"{call.__module__.partition('.')[0]}.{name}"


def _text(hint: Any) -> Any:
    """The text of an annotation of a TypedDict."""
    return getattr(hint, "__forward_arg__", hint)


def _renamed(call: str, given: Mapping[str, Any], former: Mapping[str, str]) -> dict[str, Any]:
    """Options by their names of today."""
    from .deprecated import warn_deprecated

    found = dict(given)
    for old, new in former.items():
        if old in found:
            if new in found:
                raise fault("bad-option", f"{call} was given {old}= and {new}=, which are one option")
            warn_deprecated(f"{call}({old}=)", f"{new}=")
            found[new] = found.pop(old)
    return found
