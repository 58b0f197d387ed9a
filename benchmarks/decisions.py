"""`python -m benchmarks.decisions`: the figures that docs/decisions quotes and that no other benchmark has.

Each is a small experiment of seconds. Rates are the best of many turns in processor time of one thread; counts are of
this run. `--only NAME` for one, `--report FILE` writes the tables.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import fsspec
import ml_dtypes
import msgpack
import numpy as np
import xxhash
from zlib_ng import zlib_ng

import ckptfmt
from benchmarks.reads import load_time, reads
from benchmarks.results import Spread
from ckptfmt.format.casts import cast
from ckptfmt.format.digests import digest_named
from ckptfmt.layouts.staging import STEP, Checks

Row = tuple[str, ...]
FLIPS, RACES, WRITERS, LEAVES = 12, 20, 16, 10_000
PACKAGES = ("numpy", "ml_dtypes", "torch", "safetensors", "fsspec", "zarr", "orbax-checkpoint", "xxhash", "msgpack")


def best(action: Callable[[], object], turns: int = 15) -> float:
    """The least processor time of one call."""
    times = []
    for _ in range(turns):
        begun = time.process_time()
        action()
        times.append(time.process_time() - begun)
    return min(times)


@contextmanager
def empty_folder() -> Iterator[Path]:
    here = os.getcwd()
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=here) as folder:
        yield Path(folder)


def digests() -> Iterator[Row]:
    """Digests of a block of 4 MiB on one core."""
    block = np.random.default_rng(0).bytes(4 << 20)
    kinds: dict[str, Callable[[], object]] = {
        "xxh3-128": lambda: xxhash.xxh3_128_digest(block),
        "crc32 of zlib-ng": lambda: zlib_ng.crc32(block),
        "crc32 of CPython": lambda: zlib.crc32(block),
        "sha256": lambda: hashlib.sha256(block).digest(),
    }
    with suppress(ImportError):
        import blake3

        kinds["blake3"] = lambda: blake3.blake3(block).digest()
    yield from ((name, f"{len(block) / best(action) / 1e9:.1f} GB/s") for name, action in kinds.items())


def staging() -> Iterator[Row]:
    """Digest and crc32 of 64 MiB: of the memory itself, and of what is copied out of it by parts."""
    memory = np.random.default_rng(0).integers(0, 256, 64 << 20, np.uint8)
    part = np.empty(STEP, np.uint8)

    def checked(copies: bool) -> None:
        checks = Checks(digest_named("xxh3-128"), 4 << 20)
        for start in range(0, memory.size, STEP):
            here = memory[start : start + STEP]
            if copies:
                part[...] = here
            checks.add((part if copies else here).data)

    for name, copies in (("in place", False), ("copied", True)):
        yield name, f"{memory.size / best(lambda copies=copies: checked(copies)) / 1e9:.1f} GB/s"  # type: ignore[misc]


def flips() -> Iterator[Row]:
    """Loads that give changed values without a word, of 12 files of which one bit of a tensor is flipped."""
    import torch
    import torch.distributed.checkpoint
    from safetensors.torch import load_file, save_file

    dcp: Any = torch.distributed.checkpoint
    tensors = {"w": torch.arange(4096, dtype=torch.float32)}
    arrays, target = {"w": tensors["w"].numpy()}, {"w": torch.zeros(4096)}
    with empty_folder() as folder:
        save_file(tensors, folder / "a.safetensors")
        torch.save(tensors, folder / "a.pt")
        np.savez(folder / "a.npz", w=arrays["w"])
        dcp.save(tensors, checkpoint_id=folder / "dcp", no_dist=True)
        ckptfmt.save(folder / "a.ckpt", arrays)
        (stored,) = (folder / "dcp").glob("*.distcp")
        cases: list[tuple[str, Path, Callable[[], object]]] = [
            ("safetensors", folder / "a.safetensors", lambda: load_file(folder / "a.safetensors")),
            ("torch.save", folder / "a.pt", lambda: torch.load(folder / "a.pt")),
            ("torch DCP", stored, lambda: dcp.load(target, checkpoint_id=stored.parent, no_dist=True)),
            ("np.savez", folder / "a.npz", lambda: np.load(folder / "a.npz")["w"]),
            ("ckptfmt", folder / "a.ckpt", lambda: ckptfmt.load(folder / "a.ckpt")),
        ]
        yield from ((name, f"{silent(path, arrays['w'].tobytes(), load)} of {FLIPS}") for name, path, load in cases)


def silent(path: Path, payload: bytes, load: Callable[[], object]) -> int:
    whole = path.read_bytes()
    begin, count = whole.index(payload[:64]), 0
    for number in range(FLIPS):
        changed = bytearray(whole)
        changed[begin + 97 * number] ^= 1 << number % 8
        path.write_bytes(changed)
        with suppress(Exception):
            load()
            count += 1
    return count


def exclusive() -> Iterator[Row]:
    """Rounds in which more than one of 16 threads was told that it created the same file."""

    def by_fsspec(path: str, data: bytes) -> None:
        fsspec.filesystem("file").pipe_file(path, data, mode="create")

    def by_ckptfmt(path: str, data: bytes) -> None:
        ckptfmt.save(path, {"n": int(data)}, durable=False)

    for name, create in (("fsspec, pipe_file(mode='create')", by_fsspec), ("ckptfmt.save", by_ckptfmt)):
        with empty_folder() as folder:
            yield name, f"{sum(winners(create, str(folder / str(n))) > 1 for n in range(RACES))} of {RACES}"


def winners(create: Callable[[str, bytes], None], path: str) -> int:
    barrier, won = threading.Barrier(WRITERS), []

    def one(number: int) -> None:
        barrier.wait()
        with suppress(FileExistsError):
            create(path, str(number).encode())
            won.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(won)


def manifests() -> Iterator[Row]:
    """The columns of 10,000 tensors with their digests, as a document of each kind."""
    names = [f"model/layers/{n}/mlp/weight" for n in range(LEAVES)]
    raw = {"offset": np.arange(LEAVES, dtype="<u8").tobytes(), "digest": np.random.default_rng(0).bytes(16 * LEAVES)}
    columns: dict[str, Any] = {"name": names, "dtype": ["bfloat16"] * LEAVES, "shape": [[4096, 4096]] * LEAVES}
    text = json.dumps(columns | {key: value.hex() for key, value in raw.items()}).encode()
    packed = msgpack.packb(columns | raw)
    yield "JSON, bytes as hex", f"{len(text) / 1e6:.2f} MB", f"{best(lambda: json.loads(text)) * 1e3:.1f} ms"
    yield "msgpack", f"{len(packed) / 1e6:.2f} MB", f"{best(lambda: msgpack.unpackb(packed)) * 1e3:.1f} ms"


def imports() -> Iterator[Row]:
    """What a program waits for, beyond `import numpy`: the median of five, with least and greatest."""
    modules = (
        "ckptfmt",
        "ckptfmt.reading.reader",
        "zarr",
        "fsspec",
        "torch.distributed.checkpoint",
        "orbax.checkpoint",
    )
    for module in modules:
        code = f"import numpy, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        times = []
        for _ in range(5):
            done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
            times += [float(done.stdout.splitlines()[-1])] if done.returncode == 0 else []
        if times:
            yield f"import {module}", f"{Spread.of(times)} s"


def rounding() -> Iterator[Row]:
    """Of a million float64 numbers beside the middle of two of bfloat16, those that are cast to the farther one."""
    below = np.random.default_rng(0).integers(0x3F80, 0x4000, 1 << 20).astype(np.uint16).view(ml_dtypes.bfloat16)
    middle = below.astype(np.float64) + 2.0**-8
    values = np.nextafter(middle, np.where(np.arange(len(middle)) % 2, np.inf, -np.inf))
    ways = {
        "ml_dtypes, by way of float32": values.astype(ml_dtypes.bfloat16),
        "ckptfmt": cast(values, np.dtype(ml_dtypes.bfloat16)).values,
    }
    for name, given in ways.items():
        farther = np.abs(given.astype(np.float64) - values) > 2.0**-8
        yield name, f"{int(farther.sum()):,} of {len(values):,}"


EXPERIMENTS = (digests, staging, flips, exclusive, manifests, imports, rounding, load_time, reads)


@click.command()
@click.option("--only", multiple=True, help="Experiments by name.")
@click.option("--report", type=click.Path(path_type=Path), help="The file that gets the tables.")
def main(only: tuple[str, ...], report: Path | None) -> None:
    """Measure what docs/decisions quotes."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = ["# The experiments behind docs/decisions", "", "`python -m benchmarks.decisions --report FILE`", ""]
    lines += [f"- machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}"]
    lines += [f"- versions: Python {platform.python_version()}, {versions}", ""]
    for experiment in EXPERIMENTS:
        if only and experiment.__name__ not in only:
            continue
        part = [f"## {experiment.__name__}", "", f"{experiment.__doc__}", ""]
        rows = list(experiment())
        part += [
            "|" + " |" * len(rows[0]),
            "|---" * len(rows[0]) + "|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
        ]
        print("\n".join(part), flush=True)
        lines += part
    if report is not None:
        report.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
