"""What the attacks share: each is tried in a process of its own, whose memory and processor time are measured.

An attack script makes hostile checkpoints and gives each to `attempt`, with what must come of it. The script prints a
line for each, and ends with an error if one did what it must not. `python tests/attacks/NAME.py` runs one;
tests/test_attacks.py runs all.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).parents[2]))  # of stress
sys.path.insert(0, str(Path(__file__).parents[1]))

import ml_dtypes  # noqa: F401 - whose memory, as that of what is imported below, is not what is measured
import numcodecs.blosc
import numcodecs.zstd  # noqa: F401
import numpy as np
import zlib_ng.zlib_ng  # noqa: F401
from damage import rewrite_manifest

import ckptfmt
import ckptfmt.maintenance.verification
import ckptfmt.writing.writer

MIB = 1 << 20
ROOM = 64 * MIB  # memory that any checkpoint may take
FACTOR = 16  # and for each byte of it
SECONDS, RATE = 2.0, 2e-6  # of processor time, and for each byte

OPENED = "opened"  # nothing was refused, as nothing needed to be
KNOWN = {OPENED, *ckptfmt.errors.CODES}
PROGRAM = "CKPTFMT_ATTACKED"  # names another program that is attacked, where it is set; tests/js_hostile.mjs is one
WAIT = 120  # seconds after which something waits for ever


def load(path: Path) -> Any:
    return ckptfmt.load(path)


def look(path: Path) -> Any:
    """Open, and look at everything but the elements of tensors."""
    with ckptfmt.open(path) as checkpoint:
        return checkpoint.metadata, len(checkpoint.leaves), [tensor.stored_bytes for tensor in checkpoint.values()]


def verify(path: Path) -> Any:
    """Check every byte; what is damaged is raised by its code."""
    for damage in ckptfmt.verify(path).damage:
        raise ckptfmt.errors.fault(damage.code, damage.message)


EVERYTHING = (look, load, verify)
_PLAIN = {"slices": look, "honest": load, "_load": load, "within": load}  # what another program does in place of these


def convert(path: Path) -> Any:
    """Convert a source of any format; nothing is left of a conversion that fails."""
    before = sorted(path.parent.iterdir())
    try:
        ckptfmt.convert(path, path.parent / "converted.ckpt", allow_loss=True, durable=False)
        (path.parent / "converted.ckpt").unlink()
    finally:
        assert sorted(path.parent.iterdir()) == before, "something was left behind"


def compare(path: Path) -> Any:
    """Compare a source of any format with itself."""
    ckptfmt.diff(path, path)


AS_SOURCE = (convert, compare)


def attempt(
    title: str,
    path: Path,
    *codes: str,
    actions: tuple[Callable[[Path], Any], ...] = EVERYTHING,
    size: int | None = None,
    room: int = ROOM,
) -> None:
    """Try an attack; each action must end with one of `codes`, or with any if there are none. `size`: bytes of the
    checkpoint, if not those on disk; `room`: memory that it may take beyond 16 times as much."""
    size = _size(path) if size is None else size
    program = os.environ.get(PROGRAM)
    if program is not None:
        actions = tuple({_PLAIN.get(action.__name__, action): None for action in actions if _is_plain(action)})
    measured = _measured(actions, path, size) if program is None else _measured_of(program, actions, path)
    for action, (code, memory, seconds) in zip(actions, measured, strict=True):
        line = f"{title}: {size:,} bytes, {action.__name__}: {code}, {memory / MIB:.1f} MiB, {seconds:.2f} s"
        print(line, flush=True)
        good = KNOWN if program or not codes else codes  # which of several faults is told first differs
        assert code in good, f"{line}; expected {' or '.join(codes) or 'a code'}"
        assert memory <= FACTOR * size + room, f"{line}: too much memory"
        assert seconds <= SECONDS + RATE * size, f"{line}: too much time"


def _is_plain(action: Callable[[Path], Any]) -> bool:
    return action in EVERYTHING or action.__name__ in _PLAIN


@cache
def _program(command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _measured_of(command: str, actions: tuple[Any, ...], path: Path) -> list[tuple[str, int, float]]:
    """The same of another program than `ckptfmt`, which runs until it is of no more use."""
    if not actions:
        return []
    program = _program(command)
    assert program.stdin is not None
    assert program.stdout is not None
    waiting = threading.Timer(WAIT, program.kill)
    waiting.start()
    print(json.dumps([[action.__name__ for action in actions], str(path)]), file=program.stdin, flush=True)
    answered = [tuple(json.loads(line)) for line in islice(program.stdout, len(actions))]
    is_over = len(answered) < len(actions) or json.loads(program.stdout.readline() or "true")
    waiting.cancel()
    if is_over:
        _program.cache_clear()
        program.stdin.close()
        program.wait()
        program.stdout.close()
    return answered + [(f"the process died: {program.returncode}", 0, 0.0)] * (len(actions) - len(answered))


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum(file.stat().st_size for file in files)


def _measured(actions: tuple[Callable[[Path], Any], ...], path: Path, size: int) -> list[tuple[str, int, float]]:
    """How actions ended, one after another in a process of their own: for each the code, bytes of memory that the
    process had taken at most, seconds of the processor."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            with os.fdopen(write, "w") as answers:
                _try(actions, path, size, answers)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        answered = [tuple(json.loads(line)) for line in lines]
    _, status = os.waitpid(child, 0)
    return answered + [(f"the process died: {status}", 0, 0.0)] * (len(actions) - len(answered))


def _try(actions: tuple[Callable[[Path], Any], ...], path: Path, size: int, answers: TextIO) -> None:
    warnings.simplefilter("ignore")
    limit = _status("VmSize") + FACTOR * size + ROOM + 512 * MIB  # stacks and arenas of threads are address space, too
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = _status("VmRSS")
    for number, action in enumerate(actions, 1):
        resource.setrlimit(resource.RLIMIT_CPU, (60 * number, 60 * len(actions)))
        signal.alarm(WAIT)  # which ends the process
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins anew
        start = time.process_time()
        code = _code(action, path)
        answer = code, max(0, _status("VmHWM") - before), time.process_time() - start
        print(json.dumps(answer), file=answers, flush=True)


def _code(action: Callable[[Path], Any], path: Path) -> str:
    """How an action ends; "ValueError: ..." and the like where it is not as it should."""
    try:
        action(path)
    except ckptfmt.CkptError as error:
        text = str(error)
        if "\n" in text or len(text) >= 100_000:
            return f"a message is a line, whatever the file holds: {text[:200]!r}"
        return error.code
    except MemoryError:
        return "out-of-memory"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return OPENED


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:")) << 10


# ---- hostile checkpoints


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for hostile checkpoints."""
    with tempfile.TemporaryDirectory(prefix="ckptfmt-attack-") as name:
        yield Path(name)


def hostile(
    path: Path, change: Callable[[dict[str, Any]], Any], tree: Any = None, layout: str = "file", **options: Any
) -> Path:
    """A checkpoint whose manifest was changed, and committed anew with digests that fit."""
    tree = {"w": np.arange(12.0), "x": np.arange(5)} if tree is None else tree
    ckptfmt.save(path, tree, layout=layout, durable=False, **options)
    rewrite_manifest(path, change)
    return path
