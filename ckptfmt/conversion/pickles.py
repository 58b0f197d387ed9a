"""A pickle is a program. This runs the few instructions that build plain values, and nothing else.

`load` interprets the instructions that `pickletools` knows. Objects come from a table of names alone. What has
another name is an `Unknown`, and so is whatever is made by it or taken from it: it stands where it stands, holds
nothing and does nothing. Nothing is ever imported, and an instruction that calls can call only what the table gives.
Instructions outside the set below, and names that are there to run something, are refused (`unsafe-source`).

What a program of a few bytes can ask for is bounded (`limit-exceeded`): the memory of its values, and how often they
are looked at to be hashed. Tuples that share their items can stand for 2^60 of them; keys can be chosen to collide.
"""

from __future__ import annotations

import io
import pickletools
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import CkptError, fault
from ..format.dtypes import Array
from ..format.limits import SMALL, VALUES
from .claims import allowing_values, factor, patience, shown

Readable = io.RawIOBase  # what a pickle is read from

INSTRUCTIONS = 1 << 25  # most of one pickle
PLACES = 1 << 26  # most of the memo's numbers, which writers count from 0
ALIKE = 32  # most keys with one hash
PATIENCE, STEP = 0.5, 10e-6  # seconds, and for each instruction: several times what it takes
BUFFER = 64 << 10
LONG = 1 << 20  # bytes of a string that is left in a mapped file
SCRIPT = "__torch__."  # what the names of TorchScript's own classes begin with
NAME = 1000  # most characters of a module and an object in it

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
_ARGUMENTS |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}

# whatever a pickle would do with these, it is no data: a file that names them was made to harm
_MODULES = {"os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "pty", "importlib", "runpy", "ctypes", "code"}
_CORE = {"builtins", "io", "_io"}
_RUNNING = {"eval", "exec", "compile", "open", "__import__", "setattr", "delattr", "input", "breakpoint", "execfile"}


@dataclass(frozen=True, slots=True)
class Global:
    """A name of the table, as it stands in a pickle: as a value, or to be called."""

    name: str
    make: Callable[..., Any]


@dataclass(slots=True, eq=False)
class Unknown:
    """What is called `name`, which the table does not have, or what was made by it: nothing is known of it, but whether
    it has the state of a torch module."""

    name: str
    is_module: bool = False


# as what it stands for, it can be the key of a dict; its arguments may be anything, and are not printed
@dataclass(slots=True, eq=False, repr=False)
class Record:
    """An object of a class that is known by name alone: the arguments that it was made with, and its state."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def record(name: str) -> Callable[..., Record]:
    """For a table: what is called `name` becomes a `Record`."""
    return lambda *arguments: Record(name, arguments)


@dataclass(slots=True, eq=False, repr=False)
class ObjectRecord(Record):
    """An object of any class, where a reader keeps what pickles say of such: also what was put into it as into a dict,
    or a list."""

    mapping: dict[Any, Any] = field(default_factory=dict)
    sequence: list[Any] = field(default_factory=list)


class FollowedRecord(Record):
    """A record that has bytes of its own behind its state, outside the pickle."""

    def value(self, behind: Behind) -> Any:
        """What it stands for, taken from these bytes."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Behind:
    """What lies behind a place in a file: `data`, of which the next byte is at `at`; `go` moves that; `pickle` is the
    value of a pickle that begins there."""

    data: Array
    at: int
    go: Callable[[int], Any]
    pickle: Callable[[], Any]


class RawBytes(np.ndarray[Any, Any]):
    """The bytes of a long string of bytes, where they lie in a mapped file."""

    def decode(self, *how: Any) -> str:
        return self.tobytes().decode(*how)


class RawBytearray(RawBytes):
    """Those of a bytearray."""


class OtherDict(dict[Any, Any]):
    """A dict of another class, which is known by name alone; the tag that says it, if one does, and its param."""

    name = tag = ""
    param: Any = None


class OtherList(list[Any]):
    """A sequence of another class, as `OtherDict` is a dict of one."""

    name = tag = ""
    param: Any = None


class AttributedDict(OrderedDict[Any, Any]):
    """A `collections.OrderedDict` with the attributes that its pickle gives it, such as torch's `_metadata`."""

    attributes: Any = None


def load(
    file: Readable,
    table: Mapping[str, Callable[..., Any]],
    persistent: Callable[[Any], Any] | None = None,
    *,
    is_strict: bool = True,
    data: Array | None = None,
) -> Any:
    """The value of the pickle at the file's position, which is left behind it.

    `table` maps full names ("torch._utils._rebuild_tensor_v2") to what makes their objects. `persistent` gives the
    object of a persistent id. With `is_strict` other names are refused; else each stands for an `Unknown`. With `data`,
    the mapped bytes of the file, long strings of bytes stay where they are (`RawBytes`), bytes behind records are taken
    (`FollowedRecord`), and objects of unknown classes are kept (`ObjectRecord`). Raises
    `unsafe-source`, `limit-exceeded`, EOFError for a pickle that is cut off, and any exception for one that is broken.
    """
    buffered: io.BufferedReader[Any] = io.BufferedReader(file, BUFFER)
    try:
        value = _Machine(table, persistent, is_strict, data).run(buffered)
        end = buffered.tell()
    except ValueError as error:
        if isinstance(error, CkptError) or buffered.peek(1):
            raise
        raise EOFError("the pickle ends in its middle") from error
    finally:
        buffered.detach()
    file.seek(end)
    return value


def _read(file: io.BufferedReader[Any], data: Array, size: int) -> Any:
    """The next bytes of a file, where they are if they are many."""
    if size < LONG:
        return file.read(size)
    at = file.tell()
    found = data[at : at + size].view(RawBytes)
    file.seek(at + found.size)
    return found


_CODES = {code.code.encode("latin1"): code for code in pickletools.opcodes}


def _instructions(source: Any) -> Iterator[tuple[str, Any]]:
    """The instructions of a pickle, by name, and their arguments, up to the end of it."""
    name = ""
    while name != "STOP":
        code = source.read(1)
        if not code or (opcode := _CODES.get(code)) is None:
            raise ValueError(f"the pickle has no instruction {code!r}" if code else "the pickle ends in its middle")
        name = opcode.name
        if name == "BYTEARRAY8":  # of which pickletools would make a copy
            found: Any = pickletools.read_bytes8(source)
            yield name, found.view(RawBytearray) if isinstance(found, RawBytes) else bytearray(found)
        else:
            yield name, None if opcode.arg is None else opcode.arg.reader(source)


# bytes of memory that instructions may take, beside their argument: what they make, and its place on the stack
_COSTS = {"EMPTY_LIST": 96, "EMPTY_DICT": 104, "EMPTY_SET": 240, "MARK": 120, "MEMOIZE": 120, "REDUCE": 400}
_COSTS |= {"BINPUT": 120, "LONG_BINPUT": 120, "PUT": 120, "GLOBAL": 160, "STACK_GLOBAL": 160, "NEWOBJ": 400}
_COSTS |= {"BINPERSID": 300, "APPEND": 8, "SETITEM": 120, "TUPLE1": 72, "TUPLE2": 80, "TUPLE3": 88, "TUPLE": 64}
_PLACE = 8  # of all, and of what one of these adds
_ITEM = {"SETITEMS": 60, "ADDITEMS": 80, "APPENDS": 9}

_LENGTHS = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4}
_LENGTHS |= {pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8, pickletools.UP_TO_NEWLINE: 1}
# of an instruction: itself, and what it takes of fixed width; the bytes of strings are counted as they are taken
_BYTES = {
    code.name: 1 + (0 if code.arg is None else _LENGTHS.get(code.arg.n, code.arg.n)) for code in pickletools.opcodes
}


class _Machine:
    def __init__(
        self,
        table: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any] | None,
        is_strict: bool,
        data: Array | None,
    ) -> None:
        self.table, self.persistent, self.is_strict, self.data = table, persistent, is_strict, data
        self.file: io.BufferedReader[Any] | None = None  # of a pickle that is read, and of none within it
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: dict[int, Any] = {}
        self.factor = factor()
        self.left, self.count, self.start = patience() * VALUES, 0, time.thread_time()
        self.weights: dict[int, tuple[Any, int]] = {}  # of tuples of tuples: them, and how many items they stand for
        self.alike: dict[int, list[Any]] = {}  # keys whose hash others can have, by it

    def run(self, file: io.BufferedReader[Any]) -> Any:
        is_inner, self.file = self.file is not None, file
        read = file.read if self.data is None else partial(_read, file, self.data)
        source = SimpleNamespace(read=read, readline=file.readline)  # no `tell`, which would be asked each time
        for name, argument in _instructions(source):
            self.account(_COSTS.get(name, _PLACE) - self.factor * _BYTES[name])
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _ARGUMENTS:
                self.take(argument)
            elif name == "STOP":
                return self.stack.pop()
            else:
                self.step(name, argument)
                if name == "BUILD" and isinstance(self.stack[-1], FollowedRecord) and not is_inner:
                    self.stack[-1] = self.followed(self.stack[-1], file)
        raise ValueError("the pickle has no end")

    def followed(self, found: FollowedRecord, file: io.BufferedReader[Any]) -> Any:
        """What a record stands for whose bytes follow, in which may be another pickle."""
        if self.data is None:
            return found
        outer = self.stack, self.below, self.memo
        self.stack, self.below, self.memo = [], [], {}
        value = found.value(Behind(self.data, file.tell(), file.seek, partial(self.run, file)))
        self.stack, self.below, self.memo = outer
        return value

    # ---- what it may take

    def account(self, cost: int) -> None:
        """An instruction, which takes that much memory beyond what its own byte allows."""
        self.count += 1
        self.left -= cost
        if self.left < 0:
            message = "the values of the pickle take far more memory than it has bytes"
            raise fault("limit-exceeded", f"{message}; {allowing_values()}")
        if self.count % SMALL == 0 and time.thread_time() - self.start > PATIENCE + self.count * STEP:
            raise fault("limit-exceeded", "the pickle takes far more time than it has instructions")
        if self.count > INSTRUCTIONS:
            raise fault("limit-exceeded", f"the pickle has more than {INSTRUCTIONS:,} instructions")

    def take(self, argument: Any) -> None:
        """A value that stands in the pickle, and allows as much as it has bytes."""
        if type(argument) in (str, bytes, bytearray):
            self.left += self.factor * len(argument) - sys.getsizeof(argument)
        self.stack.append(argument)

    def tuple(self, items: list[Any]) -> None:
        """Make a tuple; refuses one that stands for far more items than the pickle has instructions, as it would take
        as long to be hashed or printed."""
        made = tuple(items)
        self.weigh(made)
        if len(items) > 1 and all(type(item) is int for item in items):  # whose hash is no secret
            self.hashed([made])
        self.left -= _PLACE * len(items)
        self.stack.append(made)

    def weigh(self, made: Any) -> None:
        """Note how many items a tuple or frozenset stands for, if there are others in it."""
        weight = sum(self.weights.get(id(item), (None, 1))[1] for item in made if isinstance(item, tuple | frozenset))
        if not weight:
            return
        weight += len(made)
        if weight > SMALL + 4 * self.count:
            raise fault("limit-exceeded", "the pickle has tuples that stand for far more items than it holds")
        self.weights[id(made)] = made, weight
        self.left -= 256  # of that entry

    def hashed(self, keys: Iterable[Any]) -> None:
        """Values that are about to be hashed; refuses many of one hash. Most are strings, whose hash is secret."""
        for key in keys:
            if type(key) is str or (type(key) is int and -ALIKE < key >> 60 < ALIKE):
                continue
            if type(key) is tuple:
                self.left -= _PLACE * self.weights.get(id(key), (None, len(key)))[1]
            elif type(key) is int:
                self.left -= key.bit_length() >> 6
            self.account(0)
            try:
                others = self.alike.setdefault(hash(key), [])
            except TypeError:  # a list, say, which whoever hashes it refuses
                continue
            if key not in others:
                others.append(key)
            if len(others) > ALIKE:
                raise fault("limit-exceeded", "the pickle has keys that were chosen to collide in a hash table")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                if not 0 <= argument < PLACES:
                    raise ValueError(f"the pickle remembers a value by the number {shown(argument)}")
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                items = stack[-count:]
                del stack[-count:]
                self.tuple(items)
            case "TUPLE":
                self.tuple(self.marked())
            case "APPEND" | "SETITEM":
                count = 1 if name == "APPEND" else 2
                items = stack[-count:]
                del stack[-count:]
                self.extend(items, in_pairs=count == 2)
            case "APPENDS" | "SETITEMS" | "ADDITEMS":
                items = self.marked()
                self.left -= _ITEM[name] * len(items)
                self.extend(items, in_pairs=name == "SETITEMS")
            case _:
                self.make(name, argument)

    def make(self, name: str, argument: Any) -> None:
        """An instruction that names, calls or changes an object."""
        stack = self.stack
        match name:
            case "GLOBAL":
                self.push(self.find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                self.push(self.find(module, attribute))
            case "REDUCE" | "NEWOBJ":
                arguments, made = stack.pop(), stack.pop()
                self.push(self.call(made, arguments))
            case "NEWOBJ_EX" if type(stack[-3]) is Unknown:
                named, arguments, made = stack.pop(), stack.pop(), stack.pop()
                self.push(self.call(made, arguments if self.data is None else (*arguments, named)))
            case "FROZENSET":
                items = self.marked()
                self.left -= _ITEM["ADDITEMS"] * len(items)
                self.hashed(items)
                made = frozenset(items)
                self.push(made)
                self.weigh(made)
            case "BUILD":
                state = stack.pop()
                self.build(stack[-1], state)
            case "BINPERSID" if self.persistent is not None:
                begin = time.thread_time()
                self.push(self.persistent(stack.pop()))
                self.start += time.thread_time() - begin  # gigabytes are read there, and their checksums compared
            case _:
                raise fault("unsafe-source", f"the pickle has the instruction {name}, which weights do not require")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """What lies above the last mark, taken off the stack."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def extend(self, items: list[Any], *, in_pairs: bool) -> None:
        """Add items to the container on top of the stack."""
        container = self.stack[-1]
        if isinstance(container, ObjectRecord):
            container = container.mapping if in_pairs else container.sequence
        if isinstance(container, dict):
            for start in range(0, len(items), SMALL):
                part = items[start : start + SMALL]
                self.hashed(part[::2])
                container.update(zip(part[::2], part[1::2], strict=True))
                self.account(0)
        elif isinstance(container, list):
            container.extend(items)
        elif isinstance(container, set):
            self.hashed(items)
            container.update(items)
        elif type(container) is not Unknown:
            raise ValueError(f"items for a {type(container).__name__}")

    def find(self, module: Any, attribute: Any) -> Global | Unknown:
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise ValueError("the pickle names an object by what is no text")
        if len(module) + len(attribute) > NAME:
            raise fault("limit-exceeded", f"the pickle has a name of more than {NAME:,} characters")
        module = _RENAMED.get(module, module)  # as protocol 2 writes it
        name = _RENAMED.get(f"{module}.{attribute}", f"{module}.{attribute}")
        if name in self.table:
            return Global(name, self.table[name])
        if self.is_strict or module.partition(".")[0] in _MODULES or (module in _CORE and attribute in _RUNNING):
            raise fault("unsafe-source", f"the pickle names {name[:200]!r}, which is not required to read weights")
        return Unknown(name)

    def call(self, made: Any, arguments: Any) -> Any:
        if type(made) is Global and made.name.startswith(SCRIPT) and type(arguments) is not tuple:
            arguments = (arguments,)  # of an enum
        if type(made) not in (Global, Unknown, ObjectRecord) or type(arguments) is not tuple:
            raise fault("unsafe-source", f"the pickle calls a {type(made).__name__}")
        if isinstance(made, ObjectRecord) or (
            type(made) is Unknown and self.data is not None and made.name != "builtins.getattr"
        ):
            return ObjectRecord(made.name, arguments)
        if type(made) is Unknown:
            return _attribute(made, arguments)
        for items in (argument for argument in arguments if type(argument) in (list, tuple)):
            self.hashed(items)  # of which a set may be made, or a dict of its pairs
            self.hashed(item[0] for item in items if type(item) in (list, tuple) and len(item) == 2)
        value = made.make(*arguments)
        if isinstance(value, tuple | frozenset):
            self.weigh(value)
        if isinstance(value, _MADE):
            self.left -= (1 if isinstance(value, bytes | bytearray) else 100) * len(value)
        return value

    def build(self, target: Any, state: Any) -> None:
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, AttributedDict):
            target.attributes = state
        elif type(target) is Unknown:
            target.is_module = isinstance(state, dict) and state.keys() >= _OF_MODULES
        else:
            raise fault("unsafe-source", f"the pickle sets the state of a {type(target).__name__}")


_MADE = (bytes, bytearray, set, frozenset, dict, list)  # what a call can make again and again of one argument
_OF_MODULES = {"_parameters", "_buffers", "_modules"}  # attributes of every torch module
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_RENAMED |= {
    f"builtins.{old}": f"builtins.{new}" for old, new in (("long", "int"), ("unicode", "str"), ("xrange", "range"))
}


def _attribute(made: Unknown, arguments: tuple[Any, ...]) -> Unknown:
    """What an unknown callable makes. `getattr` stands for classes within others, and for methods."""
    if made.name != "builtins.getattr":
        return made
    match arguments:
        case (Unknown(name) | Global(name), str(attribute)):
            return Unknown(f"{name}.{attribute}"[:200])
    raise fault("unsafe-source", "the pickle takes an attribute of a value")
