"""`offload`: what a forward pass saves for the one back goes to a disk, and is read ahead on the way back."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from ckptfmt.api import save
from ckptfmt.calls import takes
from ckptfmt.checkpoint import Checkpoint
from ckptfmt.errors import CkptError, fault
from ckptfmt.recompute.budget import bytes_in
from ckptfmt.recompute.snapshots import scratch
from ckptfmt.storage.temporaries import destroy
from ckptfmt.threads import Call, CallEnd, CallQueue

from .ending import THREADS, closed_with
from .storages import ALIGNED, is_plain, part, seen, span, version
from .trimming import TRIM

AHEAD = 2  # storages that wait to be written at a time, and that are read ahead


class OffloadTraffic:
    """What became of saved tensors: bytes `saved` of those that may go to the disk, `written`, and `read`; the most of
    them in memory at a time (`peak_bytes`, with what waits to be written or was read), and how many storages
    (`storages`)."""

    def __init__(self) -> None:
        self.saved = self.written = self.read = self.peak_bytes = self.storages = 0
        self._now = 0
        self._lock = threading.RLock()  # which nobody holds while he waits

    def _add(self, size: int) -> None:
        with self._lock:
            self._now += size
            self.peak_bytes = max(self.peak_bytes, self._now)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({shown})"


@takes(name="ckptfmt_torch.recompute.offload")
@contextlib.contextmanager
def offload(
    folder: str | os.PathLike[str],
    *,
    memory: int | str = 0,
    keep: Iterable[torch.Tensor | torch.nn.Module] = (),
    smallest: int | str = "1MiB",
) -> Iterator[OffloadTraffic]:
    """Let what torch saves for the backward pass, within the block, go to checkpoints in `folder`. They are written in
    the background, read ahead in the order in which a backward pass asks for them, verified, and removed with the
    graph.

        with offload("/scratch", memory="2GiB"):
            loss = model(x)
        loss.backward()

    - `memory`: bytes, or as "512MiB", of what is saved that stay in memory: the latest, which are asked for first.
      Beside them two storages that are being written and two that were read ahead, however slow the disk is.
    - `keep`: tensors and modules whose memory stays where it is. Parameters, other leaves that require grad, and views
      of them always do; buffers of a module if it is given here; so do tensors smaller than `smallest`, and sparse,
      quantized and other tensors that are more than their storage.
    - Tensors that share a storage are written once. A tensor that was changed in place since is refused, as torch
      itself does where there are no hooks.

    Works with `torch.utils.checkpoint` in the block, of both kinds: their inputs go to the disk. Raises `InputError`
    (`bad-option`; `state-changed`, in the backward pass), and `StorageError`, in both.
    """
    kept = [tensor for value in keep for tensor in _tensors(value)]
    room = _Room(folder, bytes_in("memory", memory), bytes_in("smallest", smallest), kept)
    with torch.autograd.graph.saved_tensors_hooks(room.pack, room.unpack):
        yield room.report


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.nn.Module):
        return [*value.parameters(), *value.buffers()]
    if not isinstance(value, torch.Tensor):
        raise fault("bad-option", "keep=", found=type(value).__name__, expected="tensors and modules")
    return [value]


def _check(counter: torch.Tensor, expected: int) -> None:
    """Raise `state-changed` if a tensor, or what shares its memory, was changed in place since it had a version."""
    if version(counter) != expected:
        message = "a tensor that was saved for the backward pass has been changed in place since"
        found, before = f"version {version(counter)}", f"version {expected}"
        raise fault("state-changed", message, found=found, expected=before, advice="Copy it before it is changed")


def _weak(tensor: torch.Tensor) -> Any:
    """A tensor's storage, as a key that keeps its address from being used again, and none of its memory."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


class _Watch:
    """Sees whether a tensor is changed in place, by the counter that it shares with all that share its memory; holds
    none of that memory."""

    __slots__ = ("_counter", "_version")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._version = version(tensor)
        self._counter: torch.Tensor | None = None
        if not tensor.is_inference():
            self._counter = tensor.detach()
            self._counter.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)

    def check(self) -> None:
        if self._counter is not None:
            _check(self._counter, self._version)


class _StayingTensor:
    """A saved tensor that stays where it is."""

    __slots__ = ("_bare", "_version")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._bare, self._version = tensor.detach(), version(tensor)

    def tensor(self) -> torch.Tensor:
        _check(self._bare, self._version)
        return self._bare


class _SpilledTensor:
    """A saved tensor whose bytes the room has."""

    __slots__ = ("_asked", "_seen", "_spill", "_watch")

    def __init__(self, spill: _StorageSpill, tensor: torch.Tensor) -> None:
        self._spill, self._seen, self._watch = spill, seen(tensor, spill.start), _Watch(tensor)
        self._asked = False
        spill.waiting += 1

    def tensor(self) -> torch.Tensor:
        self._watch.check()
        spill = self._spill
        raw = spill.bytes()
        self._done()
        with torch.no_grad():
            return self._seen.of(raw)

    def _done(self) -> None:
        if not self._asked:
            self._asked = True
            self._spill.asked()

    def __del__(self) -> None:
        self._done()


class _StorageSpill:
    """Bytes of a storage: in memory, or on the disk. `waiting`: saved tensors in it that were not asked for yet."""

    def __init__(self, room: _Room, number: int, raw: torch.Tensor, start: int) -> None:
        self.number, self.start, self.size, self.waiting = number, start, raw.numel(), 0
        self._room, self._device = room, raw.device
        self._raw: torch.Tensor | None = raw  # until it is written
        self._written: CallEnd | None = None
        self._reading: Call[torch.Tensor] | None = None
        self._recent: Any = None  # what was read, as long as somebody has it
        room.report._add(self.size)

    @property
    def _path(self) -> str:
        return os.path.join(self._room.place(), f"saved-{self.number:08}.ckpt")

    @property
    def is_kept(self) -> bool:
        return self._written is None

    def write(self) -> CallEnd:
        """Begin to write it. What is on a device comes to the host first, in the order of its stream."""
        assert self._raw is not None
        host, path = self._raw.cpu(), self._path
        self._written = self._room.writer.submit(_write, weakref.ref(self), path, host, self._room.failed).end
        return self._written

    def wrote(self, size: int) -> None:
        self._room.report.written += size
        self._raw = None
        self._room.report._add(-self.size)

    def bytes(self) -> torch.Tensor:
        """Its bytes, on the device that they were on; then what lies before it is read ahead."""
        raw = self._raw
        if raw is None:
            raw = self._recent() if self._recent is not None else None
            raw = self._read() if raw is None else raw
            self._recent = weakref.ref(raw)
        elif self._written is not None:
            self._written.wait()  # to tell if that fails, as nobody may save after it
            self._room.raise_failed()
        self._room.read_ahead(self.number)
        return raw

    def _read(self) -> torch.Tensor:
        self.read_ahead()
        assert self._reading is not None
        try:
            raw = self._reading.result()
        except BaseException:
            self._let_go()  # its frames hold the graph, which holds this
            raise
        if not self.waiting:  # all have asked before: the graph is gone back through again
            self._let_go()
        return raw

    def read_ahead(self) -> bool:
        """Begin to read it; gives whether it is on the disk alone."""
        if self._raw is not None:
            return False
        if self._reading is None:
            self._room.report._add(self.size)
            self._reading = self._room.reader.submit(_read, self._path, self._device)
            self._room.report.read += self.size
        return True

    def asked(self) -> None:
        """Let go of what was read, once nobody else waits for it."""
        with self._room.report._lock:
            self.waiting -= 1
            if not self.waiting:
                self._let_go()

    def _let_go(self) -> None:
        if self._reading is not None:
            self._reading = None
            self._room.report._add(-self.size)

    def __del__(self) -> None:  # on any thread: takes no lock
        if self._raw is not None:
            self._room.report._add(-self.size)
            if self.is_kept:
                self._room.let_go.append(self.size)
        if self._written is not None:
            self._room.writer.submit(destroy, self._path)


def _write(spill: weakref.ref[_StorageSpill], path: str, host: torch.Tensor, failed: deque[CkptError]) -> None:
    """Write it, unless it is gone. Where that fails, it stays in memory, and who saves next is told."""
    if spill() is None:
        return
    try:
        done = save(path, {"bytes": host}, durable=False, overwrite=True)
    except CkptError as error:
        failed.append(error)
        return
    there = spill()
    if there is not None:
        there.wrote(done.bytes)
    TRIM.freed([host])


def _read(path: str, device: torch.device) -> torch.Tensor:
    with Checkpoint(path) as checkpoint:
        raw = torch.from_numpy(checkpoint.load()["bytes"])
    TRIM.freed([raw])  # as much as the backward pass has had before
    return raw.to(device)


class _Room:
    """All that one `offload` has saved. It lives as long as the graph; the folder is made when something goes there."""

    def __init__(self, folder: str | os.PathLike[str], memory: int, smallest: int, keep: list[torch.Tensor]) -> None:
        self._folder, self._memory, self._smallest = folder, memory, smallest
        self._keep = {_weak(t) for t in keep if is_plain(t)}
        self.report = OffloadTraffic()
        self.writer, self.reader = CallQueue(f"{THREADS}-write"), CallQueue(f"{THREADS}-read")
        self.let_go: deque[int] = deque()  # sizes of what was kept in memory, and went with its part of the graph
        self.failed: deque[CkptError] = deque()
        self._kept: deque[weakref.ref[_StorageSpill]] = deque()
        self._kept_bytes = 0
        self._pending: deque[CallEnd] = deque()
        self._all: list[weakref.ref[_StorageSpill]] = []
        self._spills: dict[tuple[Any, ...], weakref.ref[_StorageSpill]] = {}
        self._lock = threading.RLock()
        self._place: str | None = None

    def place(self) -> str:
        """The folder of this block."""
        if self._place is None:
            stack = contextlib.ExitStack()
            self._place = stack.enter_context(scratch(self._folder))
            for line in (self.reader, self.writer):
                stack.callback(line.wait)
            closed_with(self, stack.close)
        return self._place

    def pack(self, tensor: torch.Tensor) -> _StayingTensor | _SpilledTensor:
        """What is saved in place of a tensor."""
        if self._stays(tensor):
            return _StayingTensor(tensor)
        with self._lock, torch.no_grad():
            return _SpilledTensor(self._spill_of(tensor), tensor)

    def unpack(self, packed: _StayingTensor | _SpilledTensor) -> torch.Tensor:
        return packed.tensor()

    def _stays(self, tensor: torch.Tensor) -> bool:
        if not is_plain(tensor):
            return True
        start, end = span(tensor)
        if end - start < max(self._smallest, 1):
            return True
        for one in (tensor, tensor._base):
            if one is not None and (isinstance(one, torch.nn.Parameter) or (one.is_leaf and one.requires_grad)):
                return True
        return bool(self._keep) and _weak(tensor) in self._keep

    def _spill_of(self, tensor: torch.Tensor) -> _StorageSpill:
        """The bytes that a tensor sees, or, if it sees half of them or more, those of its whole storage."""
        storage = tensor.untyped_storage()
        start, end = span(tensor)
        if 2 * (end - start) >= storage.nbytes():
            start, end = 0, storage.nbytes()
        start = start // ALIGNED * ALIGNED
        key = (_weak(tensor), start, end, version(tensor))
        known = self._spills.get(key)
        spill = None if known is None else known()
        if spill is None:
            spill = _StorageSpill(self, len(self._all), part(tensor, start, end), start)
            there = weakref.ref(spill)
            self._all.append(there)
            self._spills[key] = there
            self.report.saved += spill.size
            self.report.storages += 1
            self._keep_or_write(spill)
        return spill

    def _keep_or_write(self, spill: _StorageSpill) -> None:
        """Make room for it among what stays in memory, by writing the earliest."""
        self._kept.append(weakref.ref(spill))
        self._kept_bytes += spill.size
        while self.let_go:
            self._kept_bytes -= self.let_go.popleft()
        while self._kept_bytes > self._memory:
            earliest = self._kept.popleft()()
            if earliest is None:
                continue
            self._kept_bytes -= earliest.size
            while len(self._pending) >= AHEAD:
                self._pending.popleft().wait()
            self.raise_failed()
            self._pending.append(earliest.write())

    def raise_failed(self) -> None:
        """Raise what a save has raised, which nobody holds then, as its frames hold the graph."""
        if self.failed:
            raise self.failed.popleft()

    def read_ahead(self, number: int) -> None:
        """Have those read that were saved last before one, and are on the disk."""
        found = 0
        for index in range(number - 1, -1, -1):
            spill = self._all[index]()
            if spill is not None and spill.waiting:
                found += spill.read_ahead()
                if found == AHEAD:
                    return
