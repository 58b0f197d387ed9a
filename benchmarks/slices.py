"""The 1 % slice: a whole program of its own, as short as a user would write it."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import ckptfmt
from benchmarks import disk
from benchmarks.contenders.contender import SliceCode
from benchmarks.states import SLICED, State, slice_rows

# Only what every contender needs stands around the contender's own lines.
PROGRAM = """\
import sys
import time
import zlib
path, name, start, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
import numpy
began = time.perf_counter()
{imports}
imported = time.perf_counter()
{read}
ended = time.perf_counter()
print(ended - began, ended - imported, zlib.crc32({data}))
"""


class ChildError(Exception):
    """A contender's process ended badly; the message is its last words."""

    @classmethod
    def quoting(cls, errors: str, code: int) -> ChildError:
        return cls((errors.strip().splitlines() or [f"exit status {code}"])[-1])


@dataclass(frozen=True, slots=True)
class SliceTime:
    """Wall time of the process from outside; from inside, from `import numpy` on, and of the read."""

    process: float
    beyond: float
    read: float


class SliceReader:
    """Knows the rows and what their bytes should be."""

    def __init__(self, state: State, *, cold: bool) -> None:
        # pip compiles what it installs, but for packages installed in place, as ckptfmt is here
        compileall.compile_dir(Path(ckptfmt.__file__).parent, quiet=2)
        start, stop = slice_rows(state)
        self._arguments = [SLICED, str(start), str(stop)]
        rows = state.array(SLICED)[start:stop]
        self.nbytes = rows.nbytes
        self._crc, self._cold = zlib.crc32(rows.tobytes()), cold

    def read(self, code: SliceCode, path: Path, root: Path) -> SliceTime:
        """Time one program."""
        program = PROGRAM.format(imports=code.imports, read=code.read, data=code.data)
        if self._cold:
            os.sync()
            disk.forget(path)
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), *self._arguments],
            cwd=root, capture_output=True, text=True,
        )  # fmt: skip
        process = time.perf_counter() - began
        if done.returncode:
            raise ChildError.quoting(done.stderr, done.returncode)
        beyond, read, crc = done.stdout.split()
        if int(crc) != self._crc:
            raise ChildError("the slice came back with other bytes")
        return SliceTime(process, float(beyond), float(read))
