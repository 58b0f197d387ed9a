"""The error tree and the closed registry of error codes (SPEC.md section 16).

Classes say what a caller can do: fix the call (`InputError`), choose another path (`MissingError`, `ExistsError`,
`NotACheckpointError`), restore from elsewhere (`CorruptError`), upgrade (`UnsupportedError`) or look at the disk
(`StorageError`). Codes are stable and say what happened. `fault` makes the exception of a code's class."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

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
        self.advice: str = CODES[code].advice if advice is None else advice
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


class StorageError(CkptError, OSError):
    """The disk or store failed; `errno` is set where the system gave one."""


DAMAGED = (CorruptError, LinkedError)  # what a whole verification lists: a place that cannot be read as it is


class UnknownTagWarning(UserWarning):
    """A tagged node was read as its plain child, as its tag is not known here (TAG-001)."""


class ParameterOrderWarning(UserWarning):
    """An optimizer was filled whose state is numbered by the order of parameters, which the module has otherwise."""


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


_CHECK = "Ask ckptfmt.check(tree) before a run; nothing was written"
_RESTORE = "Restore this file from another copy"
CODES: dict[str, Code] = {
    # locate
    "not-found": Code(MissingError, "locate", "nothing is at the path", "Check the path"),
    "not-a-checkpoint": Code(
        NotACheckpointError, "locate", "what is there is no checkpoint", "Give the path of a ckptfmt checkpoint"
    ),
    "temporary": Code(
        NotACheckpointError,
        "locate",
        "the temporary of an unfinished save",
        "Use the checkpoint beside it; the temporary can be deleted once no save runs",
    ),
    "truncated": Code(
        CorruptError,
        "locate",
        "begins like a checkpoint and has no commit record",
        "The copy or download is incomplete: fetch it again",
    ),
    "permission": Code(StorageError, "storage", "the system denied access", "Check owner and permissions"),
    "io": Code(StorageError, "storage", "the system reported an I/O error", "Check the disk, then try again"),
    "disk-full": Code(
        StorageError,
        "storage",
        "no space left, or quota reached",
        "Free some space and save again; nothing that was stored is affected",
    ),
    "temporary-lost": Code(
        StorageError,
        "storage",
        "what a save had written was removed before it was published",
        "Save again; nothing was committed, and what was there is untouched",
    ),
    "exclusive-unsupported": Code(
        StorageError,
        "storage",
        "the storage cannot create exclusively",
        "Save with overwrite=True and a single writer, or elsewhere",
    ),
    # commit
    "bad-record": Code(CorruptError, "commit", "the commit record is damaged", _RESTORE),
    "newer-format": Code(
        UnsupportedError, "commit", "a major version that this reader does not know", "Upgrade ckptfmt"
    ),
    "older-format": Code(
        UnsupportedError,
        "commit",
        "an earlier version that this reader does not read any more",
        "Upgrade it with an earlier release of ckptfmt",
    ),
    # manifest
    "manifest-digest": Code(CorruptError, "manifest", "manifest bytes do not match their sha256", _RESTORE),
    "bad-manifest": Code(
        CorruptError,
        "manifest",
        "the manifest breaks the specification",
        "The program that wrote it is at fault: report it there",
    ),
    "bad-extent": Code(
        CorruptError, "manifest", "a chunk lies outside its object, overlaps another or has a wrong length", _RESTORE
    ),
    "unknown-feature": Code(
        UnsupportedError, "manifest", "a required feature that this reader does not know", "Upgrade ckptfmt"
    ),
    "unknown-dtype": Code(UnsupportedError, "manifest", "a dtype that this reader does not know", "Upgrade ckptfmt"),
    "unknown-codec": Code(
        UnsupportedError,
        "manifest",
        "a codec chain that this reader does not know",
        "Upgrade ckptfmt, or save with zstd, gzip, blosc or none",
    ),
    "unknown-digest": Code(
        UnsupportedError,
        "manifest",
        "a digest algorithm that this reader does not know",
        "Upgrade ckptfmt, or install the package that the message names",
    ),
    "limit-exceeded": Code(
        UnsupportedError, "manifest", "larger than the reader's limit", "If you trust the file, raise the limit"
    ),
    # chunk
    "missing-object": Code(CorruptError, "chunk", "an object of the checkpoint is missing", _RESTORE),
    "short-object": Code(CorruptError, "chunk", "an object is shorter than its chunk", _RESTORE),
    "linked-object": Code(
        LinkedError,
        "chunk",
        "an object is a symbolic link, or lies behind one",
        "Follow links into the cache: follow_links=True; or fetch it without links: local_dir=",
    ),
    "block-digest": Code(
        CorruptError,
        "chunk",
        "a block's bytes do not match their digest",
        "Restore this tensor from another copy; the other tensors still load",
    ),
    "bad-chunk": Code(
        CorruptError,
        "chunk",
        "a chunk does not decode to its array",
        "Restore this tensor from another copy; the other tensors still load",
    ),
    "frame-digest": Code(
        CorruptError,
        "chunk",
        "bytes outside chunks and manifest changed",
        "All values are intact; save again from a load to mend the file for other tools",
    ),
    # select
    "no-such-path": Code(SelectionError, "select", "the tree has no such path", "See `ckptfmt inspect` for the paths"),
    "ambiguous-path": Code(
        SelectionError,
        "select",
        "a path text that fits two values",
        "Give the exact path: ckpt['a', 0]",
    ),
    "no-match": Code(SelectionError, "select", "select= matches nothing", "See `ckptfmt inspect` for the paths"),
    "bad-index": Code(
        SelectionError,
        "select",
        "an index that does not fit, or that the interface does not take",
        "Use ints, slices and ..., or read the tensor and index the array",
    ),
    "mismatch": Code(
        MismatchError,
        "select",
        "target and checkpoint differ",
        "Mend the target",
    ),
    "framework-dtype": Code(
        MismatchError,
        "select",
        "a framework has no tensors of a stored dtype",
        "Ask for cast=True, leave the tensor out with select=, or load it as NumPy array",
    ),
    # save
    "unsupported-leaf": Code(InputError, "save", "a leaf that has no encoding", _CHECK),
    "unsupported-key": Code(InputError, "save", "a dict key that is neither str nor int", _CHECK),
    "unsupported-dtype": Code(InputError, "save", "an array dtype that has no encoding", _CHECK),
    "too-deep": Code(
        InputError,
        "save",
        "containers nested too deeply, or containing themselves",
        "Flatten the tree; nothing was written",
    ),
    "shards-missing": Code(
        InputError,
        "save",
        "elements of a tensor that no process holds",
        "Save from all processes together, with coordinator=; nothing was written",
    ),
    "shards-overlap": Code(
        InputError,
        "save",
        "elements of a tensor that two processes hold in different shards",
        "Give each element to one shard; nothing was committed",
    ),
    "ranks-differ": Code(
        InputError,
        "save",
        "processes that act together hold different trees or options, or make different calls",
        "Give every process the same calls, options, plain values, shapes and dtypes; nothing was committed",
    ),
    "rank-failed": Code(
        StorageError,
        "storage",
        "another process that takes part failed",
        "See to the error of that process, then try again with all",
    ),
    "rank-lost": Code(
        StorageError,
        "storage",
        "a process that takes part has ended, or did not answer in time",
        "Look at the processes named, and make a new coordinator; until rank 0 has published nothing is committed",
    ),
    "writer-lost": Code(
        StorageError,
        "storage",
        "the process that writes for a manager has ended, or cannot be started",
        "Save again: another process is started; look for the step first, as it may be there as a whole",
    ),
    "no-memory": Code(
        StorageError,
        "storage",
        "the system has no memory for the copy of a tree",
        "Save with block=True, which needs no copy, or with fewer saves in flight",
    ),
    "name-too-long": Code(
        InputError, "save", "a node name that the storage cannot hold", "Shorten it; layout='file' takes longer keys"
    ),
    "name-collision": Code(
        InputError,
        "save",
        "two node names that the storage cannot tell apart",
        "Rename one, or use layout='file' for keys",
    ),
    "bad-option": Code(
        InputError,
        "save",
        "an option's value is not allowed",
        "Change the option that the message names: help() of the call says what it takes",
    ),
    "exists": Code(ExistsError, "save", "the target exists", "Choose another path, or replace it: overwrite=True"),
    "not-replaceable": Code(
        ExistsError,
        "save",
        "the target cannot be replaced atomically",
        "Choose another path, or remove the target yourself",
    ),
    # recompute
    "not-deterministic": Code(
        InputError,
        "recompute",
        "a step that is called again gives another state",
        "Put what it draws from into the state",
    ),
    "state-changed": Code(
        InputError,
        "recompute",
        "a state has another tree than the initial one",
        "Give all states one form: pad what grows",
    ),
    # migrate
    "bad-migration": Code(
        InputError,
        "migrate",
        "a migration document breaks the specification",
        "Mend the document: docs/spec/migrations.md has its rules",
    ),
    "no-migration": Code(
        InputError, "migrate", "no chain of migrations leads there", "Add the missing migration, or name other versions"
    ),
    "ambiguous-migration": Code(
        InputError, "migrate", "more than one chain of migrations leads there", "Migrate in steps, or remove an edge"
    ),
    "migration-mismatch": Code(
        InputError,
        "migrate",
        "migrations and checkpoint do not fit",
        "Mend the migration; no tensor was read and nothing was written",
    ),
    "irreversible-migration": Code(
        InputError,
        "migrate",
        "a chain of migrations that cannot be run backwards without loss",
        "Restore the checkpoint of the earlier version, or allow what is merely lossy",
    ),
    "unknown-extern": Code(
        InputError, "migrate", "a migration requires a function that was not given", "Give the function with externs="
    ),
    # convert
    "unknown-format": Code(
        InputError,
        "convert",
        "a format that no converter knows, or cannot read or write",
        "Name it with source_format= or target_format=; `ckptfmt convert --formats` lists them",
    ),
    "ambiguous-source": Code(
        InputError, "convert", "a folder with several checkpoints, of which none comes first", "Give the path of one"
    ),
    "missing-package": Code(
        UnsupportedError, "convert", "a package that is required here is missing", "Install it, then try again"
    ),
    "bad-source": Code(
        CorruptError, "convert", "a file of another format breaks that format's rules", "Fetch or write the file again"
    ),
    "unsafe-source": Code(
        UnsupportedError,
        "convert",
        "a source asks to run code, or to open what lies outside it",
        "Nothing was run; if you trust it, load it with the program that wrote it and save the tensors",
    ),
    "unsupported-source": Code(
        UnsupportedError,
        "convert",
        "a source holds something that no checkpoint here can hold",
        "Load it with the program that wrote it and save what is left out as tensors or plain values",
    ),
    "lossy": Code(
        InputError,
        "convert",
        "the target format cannot hold everything",
        "Choose another target, or allow it: allow_loss=True",
    ),
    "not-equal": Code(
        CorruptError,
        "convert",
        "what was written differs from the source",
        "Nothing was published: the source has changed meanwhile, or a disk or memory errs; convert again",
    ),
}


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
    return CODES[code].error(code, message, **place)


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
