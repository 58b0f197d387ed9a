"""A pickle is a program. This runs the few instructions that build plain values, and nothing else.

`load` interprets the instructions that `pickletools.genops` reads. Objects come from a table of names alone: a name
that is not in it is refused as it is met (`unsafe-source`), nothing is ever imported, and an instruction that calls
can call only what the table gives. Instructions outside the set below are refused too.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from ..errors import fault


class Readable(Protocol):
    """What of a file is needed to read a pickle."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


INSTRUCTIONS = 1 << 25  # most of one pickle

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_ARGUMENTS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_ARGUMENTS |= {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
_ARGUMENTS |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}


@dataclass(frozen=True, slots=True)
class Global:
    """A name of the table, as it stands in a pickle: as a value, or to be called."""

    name: str
    make: Callable[..., Any]


@dataclass(slots=True, eq=False)  # as what it stands for, it can be the key of a dict
class Record:
    """An object of a class that is known by name alone: the arguments that it was made with, and its state."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def record(name: str) -> Callable[..., Record]:
    """For a table: what is called `name` becomes a `Record`."""
    return lambda *arguments: Record(name, arguments)


class AttributedDict(OrderedDict[Any, Any]):
    """A `collections.OrderedDict` with the attributes that its pickle gives it, such as torch's `_metadata`."""

    attributes: Any = None


def load(
    file: Readable, table: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The value of the pickle at the file's position, which is left behind it.

    `table` maps full names ("torch._utils._rebuild_tensor_v2") to what makes their objects. `persistent` gives the
    object of a persistent id. Raises `unsafe-source`, and any exception for a pickle that is broken.
    """
    return _Machine(table, persistent).run(file)


class _Machine:
    def __init__(self, table: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any] | None) -> None:
        self.table, self.persistent = table, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: dict[int, Any] = {}

    def run(self, file: Readable) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, file))):
            if count == INSTRUCTIONS:
                raise fault("limit-exceeded", f"the pickle has more than {INSTRUCTIONS:,} instructions")
            name = opcode.name
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _ARGUMENTS:
                self.stack.append(argument)
            elif name == "STOP":
                return self.stack.pop()
            else:
                self.step(name, argument)
        raise ValueError("the pickle has no end")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                self.push(tuple(self.marked()))
            case "APPEND" | "SETITEM":
                count = 1 if name == "APPEND" else 2
                items = stack[-count:]
                del stack[-count:]
                self.extend(items)
            case "APPENDS" | "SETITEMS" | "ADDITEMS":
                self.extend(self.marked())
            case "GLOBAL":
                self.push(self.find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                self.push(self.find(module, attribute))
            case "REDUCE" | "NEWOBJ":
                arguments, made = stack.pop(), stack.pop()
                self.push(self.call(made, arguments))
            case "BUILD":
                state = stack.pop()
                self.build(stack[-1], state)
            case "BINPERSID" if self.persistent is not None:
                self.push(self.persistent(stack.pop()))
            case _:
                raise fault("unsafe-source", f"the pickle has the instruction {name}, which weights do not need")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """What lies above the last mark, taken off the stack."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def extend(self, items: list[Any]) -> None:
        """Add items to the container on top of the stack."""
        container = self.stack[-1]
        if isinstance(container, dict):
            container.update(zip(items[::2], items[1::2], strict=True))
        elif isinstance(container, list):
            container.extend(items)
        elif isinstance(container, set):
            container.update(items)
        else:
            raise ValueError(f"items for a {type(container).__name__}")

    def find(self, module: Any, attribute: Any) -> Global:
        name = f"{'builtins' if module == '__builtin__' else module}.{attribute}"  # as protocol 2 writes it
        if name not in self.table:
            raise fault("unsafe-source", f"the pickle names {name[:200]!r}, which is not needed to read weights")
        return Global(name, self.table[name])

    def call(self, made: Any, arguments: Any) -> Any:
        if not isinstance(made, Global) or type(arguments) is not tuple:
            raise fault("unsafe-source", f"the pickle calls a {type(made).__name__}")
        return made.make(*arguments)

    def build(self, target: Any, state: Any) -> None:
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, AttributedDict):
            target.attributes = state
        else:
            raise fault("unsafe-source", f"the pickle sets the state of a {type(target).__name__}")
