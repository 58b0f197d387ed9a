"""`python -m benchmarks.convert`: safetensors to ckptfmt and back, beside a plain copy of the same file; with
`--format` other formats whose files hold tensors as they are in memory.

Interleaved rounds, each conversion in a fresh process, the page cache warm; a ratio is the copy's time divided by the
conversion's in the same round. Nothing is made durable, as the copy is not. Once as conversion is by default, with
every tensor read back and compared, and once without.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

import click
import numpy as np

import ckptfmt
from benchmarks.copying import copied, timed
from benchmarks.disk import remove
from benchmarks.results import Spread
from benchmarks.states import llama
from ckptfmt.conversion.table import FORMATS, OWN

TARGET = 0.9  # of the speed of a copy
RAW = {
    "safetensors": "x.safetensors",
    "gguf": "x.gguf",
    "torch": "x.pt",
    "npz": "x.npz",
    "torch-dcp": "x",
    "npy": "x.npy",
}

PROGRAM = """
import json, sys, time
source, target, target_format, verify = sys.argv[1:]
import ckptfmt
import ckptfmt.conversion
begin = time.perf_counter()
ckptfmt.convert(source, target, target_format=target_format, durable=False, verify=bool(int(verify)))
print(json.dumps(time.perf_counter() - begin))
"""


@click.command()
@click.option("--quick", is_flag=True, help="A far smaller state.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--format", "formats", type=click.Choice(list(RAW)), multiple=True, default=["safetensors"])
@click.option("--dir", "parent", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path())
def main(*, quick: bool, rounds: int, formats: tuple[str, ...], parent: Path) -> None:
    """Measure conversion beside a copy."""
    ratios: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as name:
        folder = Path(name).resolve()
        sources = {format: _written(format, folder / "sources", quick=quick) for format in formats}
        for _, (format, source) in product(range(rounds), sources.items()):
            seconds = copied(source, folder / "copy")
            remove(folder / "copy")
            click.echo(f"copy of {format}, {_size(source) / 1e9:.2f} GB: {seconds:.2f} s")
            own, back = folder / "x.ckpt", folder / RAW[format]
            for verify, (begin, end, kind) in product((True, False), ((source, own, OWN), (own, back, format))):
                if not FORMATS[kind].writable:
                    continue
                what = f"{format if kind == OWN else OWN} -> {kind}, {'' if verify else 'not '}compared"
                taken, peak = timed(PROGRAM, begin, end, kind, str(int(verify)))
                ratios.setdefault(what, []).append(seconds / taken)
                memory[what] = max(peak, memory.get(what, 0))
            remove(own)
            remove(back)
    click.echo("speed beside a copy (above 1 is faster): median, least, greatest; private memory in all")
    for what, found in ratios.items():
        click.echo(f"{what:<40} {Spread.of(found)!s:<20} {memory[what] >> 20} MiB")
    click.echo(f"asked for: at least {TARGET}")


def _written(format: str, folder: Path, *, quick: bool) -> Path:
    """A source: the state of a model, of which GGUF has float16 and `.npy` the largest tensor."""
    arrays = llama(quick=quick).arrays()
    if format in ("npz", "gguf"):  # which have no bfloat16, or no name for it
        arrays = {name: array.view(np.float16) for name, array in arrays.items()}
    path = folder / RAW[format]
    folder.mkdir(exist_ok=True)
    if format == "npy":
        np.save(path, max(arrays.values(), key=lambda array: array.nbytes).view(np.float16))
    else:
        ckptfmt.save(folder / "made.ckpt", arrays, durable=False, overwrite=True)
        ckptfmt.convert(folder / "made.ckpt", path, target_format=format, durable=False, verify=False)
        remove(folder / "made.ckpt")
    return path


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.convert")
