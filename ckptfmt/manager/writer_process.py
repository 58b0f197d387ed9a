"""The process that writes what a manager saves in the background, as its program sees it.

It is a new interpreter, which has nothing of the program's but its paths of modules, and imports no framework. It gets
the plain values of a tree and the memory of its tensors, which both see, and runs the same code as the thread would
(`write_step`), under leases of its own. What calls the program's own code stays there: policies, `on_commit`,
`on_error` and `progress`.

It ends with the program, however that ends, and leaves the signals of a terminal or scheduler to it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import CkptError, fault
from ..format.manifest import Schema
from ..format.tree import Tree
from ..writing.encoder import encode
from ..writing.nans import tell_nans
from ..writing.writer import SaveReport
from . import asynchronous
from .channel import Channel, raised
from .flax_rules import FlaxNames
from .options import StepOptions
from .run import RunDirectory
from .snapshot import Snapshot
from .steps import Number

PROGRAM = "ckptfmt.manager.writer_program"
PATIENCE = 10.0  # seconds for which a process is waited for that was told to end
# what schedulers and terminals send to all processes: the program decides what it means
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_HERE = ("progress", "skip")  # options that the program itself sees to


class WriterProcess:
    """Writes steps of a run in another process, one after another. It is begun anew where it ended."""

    rank, finishes_at_exit = 2, False  # it ends after all that is waited for, by its finalizer

    def __init__(self, run: RunDirectory, options: StepOptions, nice: int) -> None:
        """Raises `bad-option` for options that cannot be told to another process, and `writer-lost`."""
        self._run, self._progress = run, options.get("progress")
        self._setup = {
            "path": run.path,
            "prefix": run.names.prefix if isinstance(run.names, FlaxNames) else None,
            "storage_options": _told("storage_options=", run.options),
            "options": _told("options", {name: value for name, value in options.items() if name not in _HERE}),
            "tells_progress": self._progress is not None,
            "nice": nice,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._ending: Any = None
        asynchronous.keep_in_mind(self)
        self.start()

    def start(self) -> None:
        """Have a process that runs; raises `writer-lost`."""
        if self._process is not None and self._process.poll() is None:
            return
        self.end()
        try:
            ours, process = _begun(self._run.path)
        except OSError as error:
            raise self._lost(f"the process that writes cannot be started: {error.strerror}") from error
        self._process, self._channel = process, Channel(ours)
        self._ending = weakref.finalize(self, _end, process, ours, os.getpid())
        with suppress(OSError):  # it has ended: who writes is told
            self._channel.send(self._setup)

    def end(self) -> None:
        """End the process, whatever it is about."""
        if self._ending is not None:
            self._ending()
        self._process = self._channel = self._ending = None

    def forget(self) -> None:
        """In a fork: it is the process of the one that forked."""
        if self._process is not None and self._channel is not None:
            self._ending.detach()
            self._process.returncode = 0  # nobody here waits for it
            self._channel.socket.close()
        self._process = self._channel = self._ending = None

    def write(
        self, step: Number, taken: Snapshot, metadata: Tree, overwrite: bool, *, replica: str | None = None
    ) -> SaveReport:
        """Save a step, or a replica of it into a directory of those; raises what that raises there, and
        `writer-lost`."""
        assert taken.shared is not None
        memory = taken.shared.finished()
        node = encode(metadata, allow_tensors=False).node
        message = [step, taken.node, memory.size, taken.shared.described, node, overwrite, replica]
        self.start()
        assert self._channel is not None
        try:
            self._channel.send(message, memory.fd)
            kind, said, own = self._answer(self._channel)
        except (EOFError, OSError):
            raise self._ended(step) from None
        except BaseException:  # an interrupt: who would take the answer?
            self.end()
            raise
        if own is not None or kind == "failed":
            raise own or raised(*said)
        nan = tuple((label, count) for label, count in said[0].pop("nan"))
        report = SaveReport(**said[0], nan=nan)
        tell_nans(report.path, report.nan)  # here, as nobody sees what that process says
        return report

    def _answer(self, channel: Channel) -> tuple[str, list[Any], BaseException | None]:
        """What became of a save, and what `progress` raised, which has ended it."""
        own: BaseException | None = None
        while True:
            (kind, *said), _ = channel.receive()
            if kind != "progress" or self._progress is None:
                return kind, said, own
            try:
                self._progress(*said)
            except BaseException as error:
                own = error
            channel.send(own is None)

    def _ended(self, step: Number) -> CkptError:
        """What to raise where the process has ended in the middle of a step."""
        process = self._process
        self.end()
        code = None if process is None else process.returncode
        how = f"ended with exit code {code}" if code is None or code >= 0 else f"was ended by {_name_of(-code)}"
        hint = ", as the system does where memory is short" if code == -signal.SIGKILL else ""
        return self._lost(f"the process that writes {how}{hint}", self._run.path_of(step))

    def _lost(self, message: str, path: str | None = None) -> CkptError:
        return fault("writer-lost", message, path=path or self._run.path)


def _begun(path: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Begin the process; gives our end of the channel."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise fault("bad-option", "this program has no interpreter that could write for it", path=path,
                    expected='background="thread"')  # fmt: skip
    ours, theirs = socket.socketpair()
    modules = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with theirs:
        command = [sys.executable, "-P", "-m", PROGRAM, str(theirs.fileno()), str(os.getpid())]
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # which the new process keeps
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": modules},
                pass_fds=[theirs.fileno()],
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    return ours, process


def _end(process: subprocess.Popen[bytes], channel: socket.socket, owner: int) -> None:
    if os.getpid() != owner:
        return
    with suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)  # also wakes a thread that waits here
    channel.close()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)


def _told(name: str, options: Mapping[str, Any] | None) -> Any:
    """Options as a node; raises `bad-option` for what another process cannot be told."""
    try:
        return encode(None if options is None else _as_dicts(options), allow_tensors=False).node
    except CkptError as error:
        message = f"{name} of a manager with another process must be plain values: {error.message}"
        raise fault("bad-option", message, expected='plain values, or background="thread"') from error


def _as_dicts(value: Any) -> Any:
    """Mappings of any kind as dicts, and a `Schema` as its parts."""
    if isinstance(value, Mapping):
        return {name: _as_dicts(item) for name, item in value.items()}
    return (value.id, value.version) if isinstance(value, Schema) else value


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
