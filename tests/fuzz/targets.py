"""What is fuzzed: functions of one byte string that may raise nothing.

`guarded` turns what no input may do into a `Finding`: an exception that is no `CkptError`, a second of processor time,
or more memory than 16 times the input and 64 MiB. Memory is bounded by the system (RLIMIT_AS), so that an allocation
beyond is seen where it happens, however short it lives.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

import ckptfmt
from ckptfmt import CkptError
from ckptfmt.conversion import crc32c
from ckptfmt.conversion.opening import open_source
from ckptfmt.conversion.source import is_tensor, walk
from ckptfmt.format.zarr_nodes import node_documents
from ckptfmt.reading import checkpoint as opening

from .bundles import storage_of

ROOM = 64 << 20  # bytes that any input may take
EXPANSION = 16  # bytes for each byte of the input
SECONDS = 1.0  # of processor time


class Finding(Exception):
    """An input did what none may do."""


@contextlib.contextmanager
def guarded(size: int) -> Iterator[None]:
    """Run a target on an input of `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    start = time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + ROOM + EXPANSION * size, limits[1]))
    try:
        yield
    except (CkptError, Finding):
        raise
    except MemoryError as error:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        raise Finding("it took too much memory") from error
    except BaseException as error:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        raise Finding(f"it raised {type(error).__name__}: {error}") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    taken = time.process_time() - start
    if taken > SECONDS:
        raise Finding(f"it took {taken:.1f} s")


def _address_space() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


class Inline(concurrent.futures.Executor):
    """Runs what is submitted at once: a thread's stack would count as memory, and take longer than what it runs."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(call(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def in_this_thread() -> Iterator[None]:
    """For targets, which run within: no other thread, and warnings go nowhere."""
    no_thread = mock.patch("ckptfmt.threads.start_thread", return_value=False)
    with warnings.catch_warnings(), no_thread, mock.patch("concurrent.futures.ThreadPoolExecutor", Inline):
        warnings.simplefilter("ignore")
        yield


# ---- checkpoints


def checkpoint(data: bytes) -> None:
    """Open a bundle and do with it whatever a reader can."""
    storage = storage_of(data)
    size = sum(map(len, storage.objects.values()))
    with mock.patch.object(opening, "storage_for", return_value=storage):
        try:
            with guarded(size):
                opened = ckptfmt.open("fuzz.ckpt")
        except CkptError as error:
            str(error)
            return
        for action in ACTIONS:
            try:
                with guarded(size):
                    action(opened)
            except CkptError as error:
                str(error)


def _look(opened: ckptfmt.Checkpoint) -> None:
    repr(opened), opened.metadata, opened.schema, opened.generator
    leaves = opened.leaves
    for path, leaf in list(leaves.items())[:64]:
        repr(leaf)
        with contextlib.suppress(CkptError):
            opened[path]
    list(opened)
    manifest = opened._view.stored.manifest
    for _ in zip(node_documents(manifest.names, manifest.specs), range(64), strict=False):
        pass


def _read_parts(opened: ckptfmt.Checkpoint) -> None:
    for tensor in list(opened.tensors.values())[:16]:
        for index in (
            (),
            (slice(0, 2),) * tensor.ndim,
            (-1,) * tensor.ndim,
            (slice(None, None, -3),) * min(tensor.ndim, 1),
        ):
            with contextlib.suppress(CkptError):
                tensor.verified(False)[index if tensor.size < 1 << 22 else (slice(0, 1),) * tensor.ndim]
        with contextlib.suppress(CkptError):
            repr((tensor.nbytes, tensor.stored_bytes, tensor.chunks, tensor.codec, tensor.dtype))


def _load(opened: ckptfmt.Checkpoint) -> None:
    opened.load(verify=False)


def _load_verified(opened: ckptfmt.Checkpoint) -> None:
    opened.load()


def _map(opened: ckptfmt.Checkpoint) -> None:
    opened.load(mmap=True)


def _verify(opened: ckptfmt.Checkpoint) -> None:
    for damage in opened.verify().damage:
        repr(damage)


ACTIONS = (_look, _read_parts, _load, _load_verified, _map, _verify)


# ---- files of other formats


def importer(format: str) -> Callable[[bytes], None]:
    """A target that reads a file of a format of `ckptfmt.conversion`."""
    folder = tempfile.mkdtemp(prefix="ckptfmt-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    path = os.path.join(folder, "source")
    with open(f"{path}.data-00000-of-00001", "wb") as file:  # of which TensorFlow's indexes say what it is
        file.write(bytes(1024))

    def target(data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)
        try:
            with guarded(len(data)), mock.patch.object(crc32c, "compare"):  # else nearly all would be damage
                source = open_source(path, format)
                with source.resources:
                    for _, leaf in walk(source.tree):
                        if is_tensor(leaf) and int(np.prod(leaf.shape, dtype=object)) < 1 << 16:
                            leaf[()]
        except CkptError as error:
            str(error)

    return target


IMPORTERS = (
    *("safetensors", "gguf", "torch", "torchscript", "torch-export", "stable-baselines3", "pickle", "skops"),
    *("npz", "npy", "flax", "tar", "compressed", "onnx", "tflite", "coreml", "tensorflow", "paddle"),
)
