"""Node names (SPEC.md section 4): typed path segments as names of Zarr nodes, injective and always legal."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from ..calls import integer_of
from ..errors import fault
from .limits import FACTOR, SMALL, VALUES

Key = str | int
Path = tuple[Key, ...]

MAX_LENGTH = 65_000  # bytes of a name [NAME-006]
MAX_INTEGER_BITS = 8192  # of an int key that is part of a name [NAME-001]
LEAST_HEXADECIMAL = MAX_INTEGER_BITS // 4  # characters of a path text with an int of more bits
_TEXT = frozenset((str,))
_LONGEST_INT = 20  # characters of an int64

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
_PLAIN = frozenset(_LETTERS)  # what stands for itself
_LEGAL = frozenset(_LETTERS + "~")  # what names of nodes are made of
_UNESCAPED = f"{_LETTERS}\n".encode()
_BETWEEN = f"{_LETTERS}~/\n".encode()
# without which all names with such letters are legal, whose lines stand between these
_SUSPICIOUS = (b"//", b"/__", b"/.", b"/zarr.json")  # where a slash stands for the end of a line, too
_SLASHES = bytes.maketrans(b"\n", b"/")
# expressions, which are compiled where they are first needed: not for a slice
_INT_LINE = r"\n-?[0-9]+(?=\n)"
_ODD_FIRST = r"\n[^A-Za-y]"


def escape(key: Key) -> str:
    """The node name of one path segment. [NAME-001] to [NAME-004]"""
    if isinstance(key, int):
        if key.bit_length() > MAX_INTEGER_BITS:
            raise fault(
                "name-too-long", f"an int key has {key.bit_length()} bits", expected=f"at most {MAX_INTEGER_BITS}"
            )
        return str(key)  # [NAME-001]
    if key and _PLAIN.issuperset(key) and not (key[0] in "-0123456789_z" or key[-1] == "."):
        return key
    raw = key.encode()
    if not raw:
        return "~"  # [NAME-004]
    name = "".join(chr(b) if chr(b) in _PLAIN else f"~{b:02X}" for b in raw)  # [NAME-002]
    if raw.removeprefix(b"-").isdigit() or raw.startswith(b"__") or raw == b"zarr.json":
        name = f"~{raw[0]:02X}{name[1:]}"  # [NAME-003]
    if name.endswith("."):
        name = f"{name[:-1]}~2E"  # [NAME-003]
    return name


def unescape(name: str) -> Path:
    """The path that a name was made from; raises `bad-manifest` for one that no path gives."""
    try:
        return tuple(map(_unescaped, name.split("/"))) if name else ()
    except ValueError:  # an escape that is none, bytes that are no UTF-8, or more digits than NAME-001 allows
        raise fault("bad-manifest", f"no path gives the tensor name {name!r:.200} [PAGE-005]") from None


def _unescaped(segment: str) -> Key:
    if "~" not in segment:
        return int(segment) if _is_integer_text(segment) else segment
    if segment == "~":
        return ""  # [NAME-004]
    first, *others = segment.split("~")
    return (first.encode() + b"".join([bytes.fromhex(part[:2]) + part[2:].encode() for part in others])).decode()


def name_of(path: Path) -> str:
    """The name of a tensor that is first met at a path. [NAME-001] to [NAME-005]"""
    return "/".join(map(escape, path))


def are_plain(keys: Collection[Any]) -> bool:
    """Whether no str among keys is empty, has a `/` or is the text of an int. [PAGE-008]"""
    if len(keys) <= SMALL:
        return not any(not key or "/" in key or _is_integer_text(key) for key in keys if type(key) is str)
    texts = keys if _TEXT.issuperset(map(type, keys)) else [key for key in keys if type(key) is str]
    lines = "\n".join(["", *texts, ""])
    if "/" not in lines and "\n\n" not in lines and not re.search(_INT_LINE, lines):  # as almost always
        return True
    return not any(not key or "/" in key or _is_integer_text(key) for key in texts)


def path_of_text(text: str) -> Path:
    """The path of a path text, where texts of ints stand for ints and `/` only between keys. [PAGE-008]"""
    return tuple([int(key) if is_int_text(key) else key for key in text.split("/")])


def exact_path(path: Key | Path) -> Path | None:
    """A caller's exact path, with ints of NumPy as ints; None for one that no tree has."""
    keys = [_exact_key(key) for key in (path if isinstance(path, tuple) else (path,))]
    return None if None in keys else tuple([key for key in keys if key is not None])


def are_names_themselves(keys: Collection[str]) -> bool:
    """Whether surely none of these keys is escaped: what `escape` looks at first, for many at once."""
    lines = "\n".join(["", *keys, ""])
    if not lines.isascii() or lines.count("\n") != len(keys) + 1 or ".\n" in lines:
        return False
    return not lines.encode().translate(None, _UNESCAPED) and not re.search(_ODD_FIRST, lines)


def path_text(path: Path) -> str:
    """A path as people write it, for patterns and lookups: segments joined with `/`. May be ambiguous."""
    return "/".join([key if isinstance(key, str) else _integer_text(key) for key in path])


def label(key: Key) -> str:
    """A key as it is, or as a literal where that could be mistaken: the str "0" for the int 0, say."""
    if isinstance(key, int):
        return _integer_text(key)
    mistaken = "/" in key or key[:1] in ("'", '"', "(") or key.lstrip("-").removeprefix("0x").isdigit()
    is_plain = key.isprintable() and key == key.strip() != "" and not mistaken
    return key if is_plain else repr(key)


def path_label(path: Path) -> str:
    """A path for messages and reports: labels joined with `/`, which no two paths share."""
    return "/".join(map(label, path))


class PathIndex:
    """Finds what callers mean by a path, among the leaves of a tree and the containers above them."""

    def __init__(self, leaves: Iterable[Path]) -> None:
        self._by_text: dict[str, list[Path]] = {}
        known: set[Path] = set()
        for path in leaves:
            for length in range(len(path), -1, -1):
                prefix = path[:length]
                if prefix in known:
                    break
                known.add(prefix)
                self._by_text.setdefault(path_text(prefix), []).append(prefix)

    def find(self, path: Key | Path, checkpoint: str) -> Path:
        """The typed path of a path text ("model/wte"), a label ("model/'0'") or an exact path ("model", 0); raises
        `no-such-path` or `ambiguous-path`."""
        fits = self.fits(path)
        if not fits:
            raise fault(
                "no-such-path", f"there is no {path!r} in the tree", path=checkpoint, hint=partial(self._near, path)
            )
        if len(fits) > 1:
            exact_ones = " or ".join(f"[{fit!r}]" for fit in fits)
            message, advice = f"{path!r} fits {len(fits)} paths", f"Give an exact one: {exact_ones}"
            raise fault("ambiguous-path", message, path=checkpoint, advice=advice)
        return fits[0]

    def name(self, path: Path) -> str | Path:
        """What finds a path again: its text, or where that fits others too, itself."""
        text = path_text(path)
        return text if self._by_text.get(text) == [path] else path

    def fits(self, path: Key | Path) -> list[Path]:
        """Every typed path that `find` could mean."""
        if isinstance(path, str):
            return self._by_text.get(path, []) or self._labelled(path)
        exact = exact_path(path)
        return [] if exact is None else [fit for fit in self._by_text.get(path_text(exact), []) if fit == exact]

    def _near(self, path: Key | Path) -> str:
        from ..near import did_you_mean  # here, as it is seldom needed

        keys = path if isinstance(path, tuple) else (path,)
        labels = (path_label(fit) for fits in self._by_text.values() for fit in fits)
        return did_you_mean("/".join(map(str, keys)), labels)

    def _labelled(self, text: str) -> list[Path]:
        """The path whose label this is, where it differs from the path text: it has a literal in it."""
        if "'" not in text and '"' not in text:
            return []
        return [fit for fits in self._by_text.values() for fit in fits if path_label(fit) == text]


def value_at(tree: Any, path: Path) -> Any:
    """What stands at a path of a tree."""
    for key in path:
        tree = tree[key]
    return tree


def is_int_text(key: object) -> bool:
    """Whether a key is the text of an int, as Python writes it: other tools write int keys as text."""
    if not isinstance(key, str) or len(key) > _LONGEST_INT:
        return False
    return key.removeprefix("-").isdecimal() and key.isascii() and str(int(key)) == key


def _is_integer_text(text: str) -> bool:
    """Whether a text is made of digits, after a minus or not."""
    return text.isascii() and text.removeprefix("-").isdigit()


def _exact_key(key: Any) -> Key | None:
    """A key that a path may have: a str, or an int, of NumPy too; None for anything else. [TREE-007]"""
    return key if isinstance(key, str) else integer_of(key)


def _integer_text(key: int) -> str:
    """Decimal digits, but hexadecimal ones where Python refuses to make so many."""
    return str(key) if key.bit_length() <= MAX_INTEGER_BITS else hex(key)


def are_names(lines: str) -> bool:
    """Whether names, a line each, are legal: at a glance where none has anything odd, without a look at each."""
    raw = f"\n{lines}".encode(errors="replace")
    segments = raw.translate(_SLASHES)
    if not raw.translate(None, _BETWEEN) and not any(found in segments for found in _SUSPICIOUS):
        return True
    return all(map(_is_name, lines.split("\n")[:-1]))


def check_names(names: Sequence[str]) -> None:
    """Refuse names that are illegal, not distinct, or lie beneath one another. [NAME-006]"""
    if len(names) == 1 and names[0] == "":
        return  # [NAME-005]
    if max(map(len, names), default=0) > MAX_LENGTH:
        raise fault("bad-manifest", f"a tensor name is longer than {MAX_LENGTH} bytes [NAME-006]")
    lines = "".join([f"{name}\n" for name in names])
    if not are_names(lines) or lines.count("\n") != len(names):
        bad = next(name for name in names if not _is_name(name))
        raise fault("bad-manifest", f"illegal tensor name {bad!r:.200} [NAME-006]")
    ordered = sorted([f"{name}/" for name in names])  # what begins with a text comes right after it
    for name, following in pairwise(ordered):
        if following.startswith(name):
            what = "stands twice" if name == following else "has tensors beneath it"
            raise fault("bad-manifest", f"tensor {name[:-1]!r:.200} {what} [NAME-006]")
    _check_nesting(names, lines)


def _is_name(name: str) -> bool:
    """Whether a name is one of a node. [NAME-006]"""
    return all(
        segment.strip(".") and _LEGAL.issuperset(segment) and segment[:2] != "__" and segment != "zarr.json"
        for segment in name.split("/")
    )


def _check_nesting(names: Sequence[str], lines: str) -> None:
    """Refuse names whose containers' names would take far more memory than they do. [LIM-007]"""
    room = FACTOR * len(lines) + VALUES
    if lines.count("/") * max(map(len, names), default=0) <= room:
        return
    if sum(len(name) * name.count("/") for name in names) > room:
        raise fault("limit-exceeded", "tensor names are nested too deeply for their length [LIM-007]")


def check_paths(paths: Sequence[str]) -> None:
    """Refuse paths of objects that are illegal or not distinct. [CHK-007]"""
    for path in paths:
        if not _is_name(path) or len(path) > MAX_LENGTH:
            raise fault("bad-manifest", f"illegal path of an object {path!r:.200} [CHK-007]")
    if len(set(paths)) != len(paths):
        raise fault("bad-manifest", "two parts name one object [LAY-004]")


def parents(names: Sequence[str]) -> set[str]:
    """The names of all containers above `names`; the root is not among them."""
    found: set[str] = set()
    for parent in {name.rpartition("/")[0] for name in names}:
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found
