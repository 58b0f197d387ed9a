"""What a power loss may leave of a recorded commit: the states, and whether each is one that SPEC.md section 11 allows.

The disk is the one that POSIX promises and no better: bytes that were not flushed may be lost or torn, names that were
not flushed may be missing, both apart from each other; names change in order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from .cases import write_files
from .recipes import Flat

State = Flat | None  # what stands at a name: the bytes of a file under "", of the files of a directory, or nothing


@dataclass(eq=False)
class Node:
    """A file or directory. `data` and `names` are what running programs see; `flushed` what surely survives, and
    `pending` the changes of names since, each a list of (name, node or None)."""

    data: bytearray | None = None
    flushed: bytes = b""
    torn: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    safe_names: dict[str, Node] = field(default_factory=dict)
    pending: list[list[tuple[str, Node | None]]] = field(default_factory=list)

    def change(self, *changes: tuple[str, Node | None]) -> None:
        _apply(self.names, changes)
        self.pending.append(list(changes))

    def flush(self) -> None:
        if self.data is not None:
            self.flushed = self.torn = bytes(self.data)
        for changes in self.pending:
            _apply(self.safe_names, changes)
        self.pending.clear()


def _apply(names: dict[str, Node], changes: Any) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """The directory in which a commit happens."""

    def __init__(self, before: dict[str, State]) -> None:
        self.root = Node()
        for name, state in before.items():
            if state is not None:
                self.root.names[name] = self.root.safe_names[name] = _settled(state)

    def call(self, call: str, path: str, data: bytes = b"", **keys: Any) -> None:
        """Carry one call of a trace out."""
        folder, name = self._holder(path)
        node = folder.names.get(name) if name else self.root
        match call:
            case "create":
                folder.change((name, Node(bytearray())))
            case "mkdir":
                folder.change((name, Node()))
            case "unlink" | "rmdir" | "remove_tree":
                folder.change((name, None))
            case "write" if node is not None and node.data is not None:
                node.torn = _written(node.data, keys["offset"], data[: len(data) // 2])
                node.data = bytearray(_written(node.data, keys["offset"], data))
            case "flush" if node is not None:
                node.flush()
            case "link" | "rename" | "exchange" if node is not None:
                other, to = self._holder(keys["to"])
                assert other is folder, "a trace moves within one directory"
                gone = {"link": node, "rename": None, "exchange": folder.names.get(to)}[call]
                folder.change((to, node), (name, gone))
            case _:
                raise ValueError(f"the trace has the call {call!r} on {path!r}, which is not there")

    def after_power_loss(self, target: str) -> Iterator[State]:
        """Everything that may stand at `target` if the power fails now."""
        for kept, whole, deep in product(range(len(self.root.pending) + 1), ("all", "torn", "flushed"), (True, False)):
            names = dict(self.root.safe_names)
            for changes in self.root.pending[:kept]:
                _apply(names, changes)
            yield _state(names.get(target), whole, deep)

    def _holder(self, path: str) -> tuple[Node, str]:
        """The directory that holds a path, and the last name; the directory itself and "" for `.`."""
        *folders, name = [part for part in path.split("/") if part != "."] or [""]
        node = self.root
        for part in folders:
            node = node.names[part]
        return node, name


def _written(before: bytearray, offset: int, data: bytes) -> bytes:
    """Contents after a write; a gap before it reads as zeros."""
    return bytes(before[:offset]).ljust(offset, b"\0") + data + bytes(before[offset + len(data) :])


def _settled(state: Flat) -> Node:
    """A file or directory that has long been flushed."""
    if "" in state:
        return Node(bytearray(state[""]), state[""], state[""])
    root = Node()
    for path, data in state.items():
        node = root
        *folders, name = path.split("/")
        for part in folders:
            node = node.names.setdefault(part, Node())
        node.names[name] = Node(bytearray(data), data, data)
    _settle_names(root)
    return root


def _settle_names(node: Node) -> None:
    node.safe_names = dict(node.names)
    for child in node.names.values():
        _settle_names(child)


def _state(node: Node | None, whole: str, deep: bool) -> State:
    """What is left of a node: its bytes by `whole`, the names below it all, or those that are flushed."""
    if node is None:
        return None
    if node.data is not None:
        return {"": {"all": bytes(node.data), "torn": node.torn, "flushed": node.flushed}[whole]}
    found: Flat = {}
    for name, child in (node.names if deep else node.safe_names).items():
        below = _state(child, whole, deep) or {}
        found |= {f"{name}/{path}" if path else name: data for path, data in below.items()}
    return found


def read_trace(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def states_of(trace: list[dict[str, Any]], target: str, before: State) -> Iterator[tuple[int, State]]:
    """(number of calls done, what stands at `target`) for every state that a power loss may leave."""
    disk = Disk({target: before})
    for number, line in enumerate([None, *trace]):
        if line is not None:
            keys = {key: value for key, value in line.items() if key not in ("hex", "length")}
            disk.call(**keys, data=bytes.fromhex(line.get("hex", "")))
        for state in disk.after_power_loss(target):
            yield number, state


def check_states(trace: Path, scratch: Path, look: Callable[[Path], str], allowed: list[str]) -> str:
    """Show every state to a reader; what it finds that is not in `allowed`, or which of these it never finds."""
    header, *lines = read_trace(trace)
    before = None if header["before"] is None else {k: bytes.fromhex(v) for k, v in header["before"].items()}
    seen: list[State] = []
    found = set()
    for number, state in states_of(lines, header["target"], before):
        if state in seen:
            continue
        seen.append(state)
        path = scratch / f"state-{len(seen)}" / header["target"]
        path.parent.mkdir()
        if state == {}:
            path.mkdir()
        elif state is not None:
            write_files({name: [data] for name, data in state.items()}, path)
        what = look(path)
        if what not in allowed:
            return f"after {number} calls and a power loss it finds {what!r}, not {' or '.join(allowed)}"
        found.add(what)
    return "" if found == set(allowed) else f"in no state it finds {sorted(set(allowed) - found)}"


def check_trace(trace: Path, target: Path, before: State) -> str:
    """Which statement a recorded commit breaks, "" if none: in every state the target is `before`, or whole and new,
    and at the end it is sure to be new. [PUB-002] to [PUB-004]"""
    from .judge import snapshot

    new: State = snapshot(target)
    lines = read_trace(trace)
    if not lines:
        return "the trace is empty"
    contents = _contents(lines, target, new)
    for line in lines:
        if line["call"] == "write":
            data = contents.get(line["path"], b"")
            line["hex"] = data[line["offset"] : line["offset"] + line["length"]].hex()
    if not any(line["path"].split("/")[0].endswith(".ckptfmt-tmp") for line in lines if line["call"] == "create"):
        return "nothing was written to a temporary sibling [PUB-001]"
    last: list[State] = []
    number = -1
    for at, state in states_of(lines, target.name, before):
        if state not in (before, new):
            return f"after {at} of {len(lines)} calls a power loss leaves part of a checkpoint [PUB-002]"
        if at != number:
            last, number = [], at
        last.append(state)
    return "" if all(state == new for state in last) else "after the commit a power loss undoes it [PUB-002]"


def _contents(lines: list[dict[str, Any]], target: Path, new: State) -> dict[str, bytes]:
    """What the files of a trace held, by the paths at which they were written: their bytes stand at the target now."""
    found: dict[str, bytes] = {}
    for line in lines:
        if line["call"] in ("link", "rename", "exchange") and line["to"] == target.name:
            for path, data in (new or {}).items():
                found[f"{line['path']}/{path}" if path else line["path"]] = data
    return found
