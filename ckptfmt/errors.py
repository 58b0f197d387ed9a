"""The error tree and the closed registry of error codes (SPEC.md section 16), whose rows are in `error_codes`.

Classes say what a caller can do: fix the call (`InputError`), choose another path (`MissingError`, `ExistsError`,
`NotACheckpointError`), restore from elsewhere (`CorruptError`), upgrade (`UnsupportedError`) or look at the disk
(`StorageError`). Codes are stable and say what happened. `fault` makes the exception of a code's class."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from .tuples import NamedTuple


class CkptError(Exception):
    """Root of the error tree.

    Attributes: `code` (a key of `CODES`), `path` (the checkpoint), `tensor` (the label of its path:
    "model/wte", and "model/'0'" for the str key "0"), `chunk`, `block` (numbers), `object` (its path in the
    checkpoint, "" in layout `file`), `offset` (bytes in the object), `found`, `expected`, `errno`, `ranks` (numbers of
    the processes at fault); those that do not apply are None. `advice`: what to do, that of the code or a better one.
    `hint`: what near names there are, which is looked for when somebody reads it, and may be empty.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: Any = None,
        tensor: str | None = None,
        chunk: int | None = None,
        block: int | None = None,
        object: str | None = None,
        offset: int | None = None,
        found: Any = None,
        expected: Any = None,
        report: Any = None,
        errno: int | None = None,
        ranks: list[int] | None = None,
        advice: str | None = None,
        hint: str | Callable[[], str] = "",
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.path: str | None = None if path is None else str(path)
        self.tensor = tensor
        self.chunk = chunk
        self.block = block
        self.object = object
        self.offset = offset
        self.found = found
        self.expected = expected
        self.report = report
        self.ranks = ranks
        self.advice: str = _registry()[code].advice if advice is None else advice
        self._hint = hint
        self.errno: int | None = errno  # overrides what OSError makes of its arguments

    @property
    def hint(self) -> str:
        if callable(self._hint):
            self._hint = self._hint()
        return self._hint

    @hint.setter
    def hint(self, hint: str) -> None:
        self._hint = hint

    def __str__(self) -> str:
        return self.text()

    def text(self, spelled: Callable[[str], str] = str) -> str:
        """Return all of it in one line; `spelled` puts what messages and advice call by its name in Python
        otherwise."""
        text = spelled(self.message)
        if self.tensor is not None and repr(self.tensor) not in text:
            text = f"tensor {self.tensor!r}: {text}"
        if self.expected is not None:
            found = "" if self.found is None else f"found {_short(self.found)}, "
            text += f" ({found}expected {spelled(_short(self.expected))})"
        text = text[:LONGEST] + self.hint
        where = "" if self.path is None else f"{self.path}: "
        return visible(f"{where}{text}{'' if text[-1:] == '?' else '.'} {spelled(self.advice)} [{self.code}]")

    def __reduce__(self) -> tuple[Any, ...]:
        place = {**vars(self), "_hint": self.hint, "errno": self.errno}
        return _rebuild, (type(self), self.code, self.message, place)


class InputError(CkptError, ValueError):
    """The call or the tree cannot be carried out as it is; nothing was written."""


class MismatchError(InputError):
    """A target tree does not fit the checkpoint; `.report` is the `MatchReport`. Nothing was written to the target, but
    where an object's own code refused what only its values tell: then the message says what was loaded before."""


class SelectionError(CkptError, LookupError):
    """A path, pattern or index that the checkpoint does not have."""


class MissingError(CkptError, FileNotFoundError):
    """There is nothing at the path."""


class ExistsError(CkptError, FileExistsError):
    """The target exists and may not, or cannot, be replaced; it is untouched."""


class NotACheckpointError(CkptError):
    """There is something at the path, but no checkpoint."""


class CorruptError(CkptError):
    """Stored bytes are damaged, or contradict the specification."""


class UnsupportedError(CkptError):
    """The checkpoint requires a newer or richer reader, or a higher limit."""


class LinkedError(UnsupportedError):
    """Symbolic links stand in the place of objects, which are followed on request alone (`follow_links=True`)."""


class SignatureError(CkptError):
    """Nobody who is trusted vouches for the checkpoint as it is here; nothing of it was given."""


class StorageError(CkptError, OSError):
    """The disk or store failed; `errno` is set where the system gave one."""


DAMAGED = (CorruptError, LinkedError)  # what a whole verification lists: a place that cannot be read as it is


class UnknownTagWarning(UserWarning):
    """A tagged node was read as its plain child, as its tag is not known here (TAG-001)."""


class ParameterOrderWarning(UserWarning):
    """An optimizer was filled whose state is numbered by the order of parameters, which the module has otherwise."""


class NanWarning(UserWarning):
    """Tensors with NaNs were saved, where `on_nan="warn"` looks for them. `nan`: the label of each, and how many."""

    def __init__(self, message: str, nan: tuple[tuple[str, int], ...] = ()) -> None:
        super().__init__(message)
        self.nan = nan


class CastWarning(UserWarning):
    """Elements that were cast lie beyond the range of the dtype that was asked for (DTYPE-009). `overflows`: a
    `ckptfmt.Overflow` for each such tensor."""

    def __init__(self, message: str, overflows: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.overflows = overflows


class Code(NamedTuple):
    """One row of the registry: error class, phase, what it means, what to do."""

    error: type[CkptError]
    phase: str
    meaning: str
    advice: str


if TYPE_CHECKING:
    CODES: dict[str, Code]


def __getattr__(name: str) -> Any:
    if name == "CODES":
        return _registry()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _registry() -> dict[str, Code]:
    from .error_codes import TABLE  # here, as most programs meet no error

    classes = {kind.__name__: kind for kind in globals().values() if isinstance(kind, type)}
    return {code: Code(classes[row.error], *row[1:]) for code, row in TABLE.items()}


LONGEST = 10_000  # characters of what is said of a checkpoint, whose names may have any length


def visible(text: str) -> str:
    """The text as one line, in which what is not printable stands as an escape, as in a Python literal."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def _short(value: object) -> str:
    """A value in a message; an int in hexadecimal where it has more digits than Python prints."""
    return hex(value) if isinstance(value, int) and value.bit_length() > 4096 else str(value)


def fault(code: str, message: str, **place: Any) -> CkptError:
    """The exception for `code`; `place` are the keyword arguments of `CkptError`."""
    return _registry()[code].error(code, message, **place)


_ERRNO = {
    errno.ENOENT: "not-found",
    errno.ENOTDIR: "not-found",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EROFS: "permission",
    errno.EEXIST: "exists",
    errno.ENAMETOOLONG: "name-too-long",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "disk-full"),
}


def os_fault(error: OSError, doing: str, path: object) -> CkptError:
    """The exception for an operating-system error met while `doing` something at `path`."""
    code = _ERRNO.get(error.errno or 0, "io")
    return fault(code, f"{doing}: {error.strerror or error}", path=path, errno=error.errno)


def _rebuild(cls: type[CkptError], code: str, message: str, place: dict[str, Any]) -> CkptError:
    error = cls(code, message)
    for name, value in place.items():
        setattr(error, name, value)
    return error
