"""The program that writes for a manager in a process of its own: `python -m` this, with the number of a socket and of
the process that it writes for. See `writer_process`."""

from __future__ import annotations

import dataclasses
import os
import select
import socket
import sys
import warnings
from queue import SimpleQueue
from typing import Any

from ..errors import NanWarning
from ..format import tree as trees
from ..format.node import Node
from ..format.tree import Tree
from ..frameworks.adapter import KEPT
from ..parallel.coordinator import Alone
from ..threads import start_thread
from ..writing.writer import SaveReport
from .channel import Channel, failure
from .flax_rules import FlaxNames
from .imports import import_all
from .run import run_at
from .saving import SaveOrder, write_replica, write_step
from .shared_memory import SharedMemory, seen_in
from .steps import FixedNames, Number, StepNames

LOOK = 1000  # milliseconds after which it looks whether the program is still there, if a fork of that keeps the socket


class _EndedError(Exception):
    """The program does not want the save any more."""


class WriterProgram:
    """Saves what it is told to, one after another."""

    def __init__(self, channel: Channel, parent: int) -> None:
        self._channel, self._parent = channel, parent
        self._names: StepNames = FixedNames()
        self._messages: SimpleQueue[tuple[Any, int | None]] = SimpleQueue()

    def serve(self) -> None:
        """Until the program ends."""
        if not start_thread("ckptfmt-listen", self._listen):
            os._exit(1)
        setup, _ = self._messages.get()
        os.nice(setup["nice"])
        self._options: dict[str, Any] = _values(setup["options"])
        if setup["tells_progress"]:
            self._options["progress"] = self._progress
        import_all(self._options)
        if setup["prefix"] is not None:
            self._names = FlaxNames(setup["prefix"])
        self._run = run_at(setup["path"], self._names, _values(setup["storage_options"]))
        while True:
            self._channel.send(self._done(*self._messages.get()))

    def _listen(self) -> None:
        """Take what comes in, and end with the program, whatever is being saved: that is lost as a whole."""
        ready = select.poll()
        ready.register(self._channel.socket, select.POLLIN)
        try:
            while os.getppid() == self._parent:
                if ready.poll(LOOK):
                    self._messages.put(self._channel.receive())
        finally:
            os._exit(0)

    def _done(self, message: Any, fd: int | None) -> list[Any]:
        try:
            assert fd is not None
            return ["saved", dataclasses.asdict(self._saved(fd, *message))]
        except BaseException as error:
            return ["failed", *failure(error)]

    def _saved(
        self,
        fd: int,
        step: Number,
        node: Node,
        size: int,
        described: bytes,
        metadata: Node,
        overwrite: bool,
        replica: str | None,
    ) -> SaveReport:
        memory = SharedMemory(fd, size)
        tree = trees.decode(node, seen_in(memory, described).__getitem__, None, KEPT)
        order = SaveOrder(step, tree, _values(metadata), overwrite)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NanWarning)  # the report says it to the program, which warns
            if replica is not None:
                return write_replica(run_at(replica, self._names), Alone(), order, self._options)
            return write_step(self._run, Alone(), order, self._options)

    def _progress(self, done: int, total: int) -> None:
        self._channel.send(["progress", done, total])
        goes_on, _ = self._messages.get()
        if not goes_on:
            raise _EndedError


def _values(node: Any) -> Tree:
    return trees.decode(node, [].__getitem__, None, KEPT)


if __name__ == "__main__":
    number, parent = map(int, sys.argv[1:])
    WriterProgram(Channel(socket.socket(fileno=number)), parent).serve()
