"""Other names for what a tree holds: only the part below a prefix, without the prefixes that wrappers of modules leave
in names, below another prefix. Pure: on nodes, whose tensors stay the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..errors import CkptError, fault
from ..tuples import NamedTuple
from .names import Key, Path, PathIndex, label, path_text
from .node import Node
from .tree import bare, decode_key, leaves, node_at

# what torch.compile, FSDP and activation checkpointing put into names, at any place, and nothing else does
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
MAY_BE_THERE = {*WRAPPERS, "module."}  # what programs take off whether a model was wrapped or not; the last is DDP's

Text = Callable[[str], str | None]  # another text for one; None leaves it out


class Renaming(NamedTuple):
    """In this order: only what is at the path `prefix`, or in its dict under keys that begin with its last part and
    a period; the prefixes `strip` taken off; `add` put before."""

    prefix: Key | Path = ""
    strip: tuple[str, ...] = ()
    add: str = ""

    @classmethod
    def of(cls, prefix: Key | Path | None, strip: str | Iterable[str] | None, add: str | None) -> Renaming:
        """From the options of loads; raises `bad-option`."""
        given = (strip,) if isinstance(strip, str) else tuple(strip or ())
        for option, text in (*(("strip_prefix", text) for text in given), ("add_prefix", add or "")):
            if not isinstance(text, str):
                raise fault("bad-option", f"{option}= is a text", found=repr(text))
            if text and not text.endswith((".", "/")):
                message = f"{option}={text!r} ends neither with '.' nor with '/'"
                raise fault(
                    "bad-option", message, advice=f"Write {text + '.'!r} for names such as {text + '.weight'!r}"
                )
        return cls("" if prefix is None else prefix, tuple(filter(None, given)), add or "")

    def pattern(self, text: str) -> str:
        """A pattern for the names before as one for the names after, as far as its beginning tells."""
        before = path_text(self.prefix) if isinstance(self.prefix, tuple) else str(self.prefix)
        text = text.removeprefix(before).removeprefix("/")
        for prefix in self.strip:
            text = stripped(text, prefix)
        return self.add + text

    def __str__(self) -> str:
        """The options that ask for it."""
        options = {"prefix": self.prefix, "strip_prefix": ", ".join(self.strip), "add_prefix": self.add}
        return ", ".join(f"{name}={text!r}" for name, text in options.items() if text)

    def node(self, node: Node, checkpoint: str) -> Node:
        """A tree's node under the new names; raises `no-such-path`, and `bad-option` where two values get one."""
        try:
            if self.prefix not in ("", ()):
                node = _below(node, self.prefix, checkpoint)
            node = self._stripped(node)
            *levels, start = self.add.split("/")
            node = _rekeyed(node, lambda text: start + text) if start else node
            for level in reversed(levels):
                node = ["dict", [level], [node]]
        except CkptError as error:
            error.path = error.path or checkpoint
            raise
        return node

    def _stripped(self, node: Node) -> Node:
        """Without the prefixes; raises `no-such-path` where no name has any of them."""
        before = node
        for prefix in self.strip:
            *levels, start = prefix.split("/")
            for level in levels:
                node = _raised(node, level)
            node = _rekeyed(node, partial(stripped, prefix=start), deep=True) if start else node
        if node == before and not set(self.strip) <= MAY_BE_THERE:
            given = " or ".join(map(repr, self.strip))
            message = f"strip_prefix: no name begins with {given}"
            raise fault("no-such-path", message, advice=f"Leave it out, or mend it. {_near(node, self.strip[0])}")
        return node


def stripped(text: str, prefix: str) -> str:
    """A key without a prefix, where it begins with that; without that of a wrapper, wherever it stands."""
    return re.sub(rf"(?<![^.]){re.escape(prefix)}", "", text) if prefix in WRAPPERS else text.removeprefix(prefix)


def _below(node: Node, prefix: Key | Path, checkpoint: str) -> Node:
    paths = PathIndex(path for path, _ in leaves(node))
    if not isinstance(prefix, str):
        return node_at(node, paths.find(prefix, checkpoint))
    head, slash, last = prefix.rpartition("/")
    start = last.removesuffix(".") + "."
    try:
        if not prefix.endswith("."):
            try:
                return node_at(node, paths.find(prefix.removesuffix("/"), checkpoint))
            except CkptError as error:
                if error.code != "no-such-path" or not last:
                    raise
        outer = node_at(node, paths.find(head, checkpoint)) if slash else node
    except CkptError as error:
        error.message = f"prefix={prefix!r}: {error.message}"
        error.advice = _near(node, prefix) if error.code == "no-such-path" else error.advice
        raise
    found = _rekeyed(outer, lambda text: text[len(start) :] if text.startswith(start) else None)
    if bare(found)[0] != "dict" or not bare(found)[1]:
        raise fault("no-such-path", f"prefix={prefix!r}: no name begins with it", advice=_near(node, prefix))
    return found


def _near(node: Node, prefix: str) -> str:
    """What can be given instead of a prefix that is not there."""
    match bare(node):
        case ["dict", keys, _] if keys:
            texts = [label(decode_key(key)) for key in keys]
            starts = list(dict.fromkeys(text.partition(".")[0] + "." if "." in text else text for text in texts))
            more = " …" if len(starts) > 8 else ""
            return f"At the top there are {', '.join(starts[:8])}{more}"
    return "The tree has no names at its top"


def _raised(node: Node, level: str) -> Node:
    """A dict with the items of the dict at one of its keys in the place of that."""
    match node:
        case ["tag", name, param, child]:
            return ["tag", name, param, _raised(child, level)]
        case ["dict", keys, items] if level in keys:
            place = keys.index(level)
            match bare(items[place]):
                case ["dict", inner, values]:
                    if len(keys) == 1:
                        return items[place]  # with its tags
                    names = [*keys[:place], *inner, *keys[place + 1 :]]
                    return ["dict", _distinct(names), [*items[:place], *values, *items[place + 1 :]]]
    return node


def _rekeyed(node: Node, text: Text, *, deep: bool = False) -> Node:
    """A dict with other texts for its keys; `deep`: all dicts in it, too."""
    match node:
        case ["tag", "torch.state_dict", ["dict", keys, items], child]:
            versions = {
                name: item for key, item in zip(keys, items, strict=True) if (name := _module(key, text)) is not None
            }
            return [
                "tag",
                "torch.state_dict",
                ["dict", list(versions), list(versions.values())],
                _rekeyed(child, text, deep=deep),
            ]
        case ["tag", name, param, child]:
            return ["tag", name, param, _rekeyed(child, text, deep=deep)]
        case ["dict", keys, items]:
            pairs = [(_key(key, text), item) for key, item in zip(keys, items, strict=True)]
            kept = [(key, _rekeyed(item, text, deep=True) if deep else item) for key, item in pairs if key is not None]
            return ["dict", _distinct([key for key, _ in kept]), [item for _, item in kept]]
        case ["list" | "tuple" as kind, items] if deep:
            return [kind, [_rekeyed(item, text, deep=True) for item in items]]
    return node


def _key(key: Any, text: Text) -> Any:
    """A key under its other text; ints stay, where texts are left out they go, and no key becomes empty."""
    if type(key) is not str:
        return key if text("") is not None else None
    found = text(key)
    return key if found == "" else found


def _module(name: str, text: Text) -> str | None:
    """The name of a module whose parameters get other names: "layers.0" for "layers.0.weight", "" for the outermost."""
    found = text(f"{name}." if name else "")
    return None if found is None else found.removesuffix(".")


def _distinct(keys: list[Any]) -> list[Any]:
    seen: set[Key] = set()
    for key in map(decode_key, keys):
        if key in seen:
            message = f"two values would have the name {label(key)!r} without their prefixes"
            raise fault("bad-option", message, advice="Give prefix= to take those with the prefix alone")
        seen.add(key)
    return keys
