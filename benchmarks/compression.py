"""`python -m benchmarks.compression`: lossless compression of weights beside what else does it.

Weights are drawn as trained ones are distributed: normal, each layer with a scale of its own (LeCun), or read from a
file of safetensors that is given. Rounds are interleaved, the page cache is warm, and nothing is made durable. Each
saves arrays into a file, and loads it into fresh memory; lmz, which knows files only, goes from one to another.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import ckptfmt

Tree = dict[str, Any]
DTYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float16": np.float16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
}
THREADS = os.cpu_count() or 2
WIDTHS = (512, 1024, 2048, 4096)  # of layers


class Packer(NamedTuple):
    """A way to save and load: `save(tree, path)`, `load(path)`; `prepared`: what it saves, if that is not the tree."""

    name: str
    save: Callable[[Any, Path], object]
    load: Callable[[Path], object]
    prepared: Callable[[Tree, Path], Any] = lambda tree, folder: tree
    package: str | None = None


def of_ours(compression: str | None) -> tuple[Callable[[Any, Path], object], Callable[[Path], object]]:
    def save(tree: Tree, path: Path) -> object:
        return ckptfmt.save(path, tree, compression=compression, durable=False)

    return save, ckptfmt.load


def zipnn_save(tree: Tree, path: Path) -> None:
    import zipnn

    kind = {2: "bfloat16", 4: "float32"}
    with open(path, "wb") as file:
        for array in tree.values():
            packer = zipnn.ZipNN(bytearray_dtype=kind.get(array.itemsize, "bfloat16"), threads=THREADS)
            data = packer.compress(array.tobytes())
            file.write(len(data).to_bytes(8, "little"))
            file.write(data)


def zipnn_load(path: Path) -> list[Any]:
    import zipnn

    found = []
    with open(path, "rb") as file:
        while head := file.read(8):
            packer = zipnn.ZipNN(threads=THREADS)
            found.append(packer.decompress(file.read(int.from_bytes(head, "little"))))
    return found


def as_safetensors(tree: Tree, folder: Path) -> Path:
    """The file that lmz packs."""
    ckptfmt.save(folder / "plain.ckpt", tree, durable=False, overwrite=True)
    ckptfmt.convert(folder / "plain.ckpt", folder / "plain.safetensors", overwrite=True, durable=False, verify=False)
    return folder / "plain.safetensors"


def lmz_save(source: Path, path: Path) -> object:
    import lmz

    return lmz.compress(str(source), str(path), workers=THREADS)


def lmz_load(path: Path) -> object:
    import lmz

    return lmz.decompress(str(path), f"{path}.back", workers=THREADS, overwrite=True)


PACKERS = (
    Packer("ckptfmt, raw", *of_ours(None)),
    Packer("ckptfmt, zstd", *of_ours("zstd")),
    Packer("ckptfmt, blosc", *of_ours("blosc")),
    Packer("ckptfmt, weights", *of_ours("weights"), package="zstandard"),
    Packer("zipnn", zipnn_save, zipnn_load, package="zipnn"),
    Packer("lmz", lmz_save, lmz_load, as_safetensors, package="lmz"),
)


def drawn(dtype: Any, nbytes: int, seed: int = 0) -> Tree:
    """Layers with about as many bytes together."""
    random, total = np.random.default_rng(seed), 0
    tree: Tree = {}
    while total < nbytes:
        width = WIDTHS[len(tree) % len(WIDTHS)]
        values = random.standard_normal((width, 4096), np.float32) / np.float32(width**0.5)
        tree[f"layer{len(tree)}"] = values.astype(dtype)
        total += tree[f"layer{len(tree) - 1}"].nbytes
    return tree


def trees(options: argparse.Namespace) -> Iterator[tuple[str, Tree]]:
    for path in options.file:
        yield Path(path).name, {"/".join(map(str, key)): value[()] for key, value in ckptfmt_arrays(path)}
    for name in options.dtype if not options.file else ():
        yield name, drawn(DTYPES[name], options.mb << 20)


def ckptfmt_arrays(path: str) -> list[tuple[Any, Any]]:
    """All tensors of a file of any format."""
    with tempfile.TemporaryDirectory() as folder:
        ckptfmt.convert(path, Path(folder) / "c", durable=False, allow_loss=True)
        with ckptfmt.open(Path(folder) / "c") as checkpoint:
            return [(key, tensor[()]) for key, tensor in checkpoint.tensors.items()]


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock, and of all processors."""
    before, begin = os.times(), time.perf_counter()
    call()
    seconds, after = time.perf_counter() - begin, os.times()
    return seconds, after.user + after.system - before.user - before.system


def measure(packer: Packer, asked: Any, path: Path) -> tuple[int, float, float, float, float]:
    """Bytes, and seconds of a save and of a load: of the clock, then of all processors."""
    path.unlink(missing_ok=True)
    save, save_work = timed(lambda: packer.save(asked, path))
    load, load_work = timed(lambda: packer.load(path))
    return path.stat().st_size, save, load, save_work, load_work


def report(name: str, tree: Tree, rounds: int, folder: Path) -> Iterator[str]:
    total = sum(array.nbytes for array in tree.values())
    packers = [one for one in PACKERS if one.package is None or find_spec(one.package)]
    asked = {one.name: one.prepared(tree, folder) for one in packers}
    found: dict[str, list[tuple[int, float, float, float, float]]] = {one.name: [] for one in packers}
    for _ in range(rounds):
        for one in packers:
            found[one.name].append(measure(one, asked[one.name], folder / "packed"))
    yield f"\n{name}: {len(tree)} tensors, {total / 1e9:.2f} GB, {rounds} rounds; GB/s as median (least to greatest)\n"
    yield "| | of the size | save | load | save, each core | load, each core |"
    yield "|---|---:|---:|---:|---:|---:|"
    for one in packers:
        sizes, *times = zip(*found[one.name], strict=True)
        cells = [spread([total / 1e9 / max(seconds, 1e-9) for seconds in column]) for column in times]
        yield f"| {one.name} | {sizes[0] / total:.3f} | {' | '.join(cells)} |"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def versions() -> str:
    names = []
    for name in ("ckptfmt", "numpy", "numcodecs", "zstandard", "zipnn", "lmzip"):
        try:
            names.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            names.append(f"{name} (not installed)")
    return ", ".join(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=512, help="MB of drawn weights of each dtype")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", nargs="*", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--file", nargs="*", default=[], help="weights of real models, of any format")
    parser.add_argument("--dir", default=".", help="where files are written: measure a real disk")
    options = parser.parse_args()
    print(f"{versions()}; {THREADS} cores, load {os.getloadavg()[0]:.1f} at the beginning")
    folder = Path(tempfile.mkdtemp(prefix=".benchmark-", dir=options.dir))
    try:
        for name, tree in trees(options):
            for line in report(name, tree, options.rounds, folder):
                print(line, flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
