"""`python -m benchmarks.convert`: safetensors to ckptfmt and back, beside a plain copy of the same file.

Interleaved rounds, each conversion in a fresh process, the page cache warm; a ratio is the copy's time divided by the
conversion's in the same round. Nothing is made durable, as the copy is not. Once as conversion is by default, with
every tensor read back and compared, and once without.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.copying import copied, timed
from benchmarks.disk import remove
from benchmarks.results import Spread
from benchmarks.states import llama

TARGET = 0.8  # of the speed of a copy

PROGRAM = """
import json, sys, time
source, target, verify = sys.argv[1:]
import ckptfmt
import ckptfmt.conversion
begin = time.perf_counter()
ckptfmt.convert(source, target, durable=False, verify=bool(int(verify)))
print(json.dumps(time.perf_counter() - begin))
"""


@click.command()
@click.option("--quick", is_flag=True, help="A far smaller state.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--dir", "parent", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path())
def main(*, quick: bool, rounds: int, parent: Path) -> None:
    """Measure conversion beside a copy."""
    import safetensors.numpy

    ratios: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as name:
        folder = Path(name).resolve()
        plain, own, back = folder / "x.safetensors", folder / "x.ckpt", folder / "y.safetensors"
        safetensors.numpy.save_file(llama(quick=quick).arrays(), plain)
        for _ in range(rounds):
            seconds = copied(plain, folder / "copy")
            remove(folder / "copy")
            click.echo(f"copy of {plain.stat().st_size / 1e9:.2f} GB: {seconds:.2f} s")
            for verify in (True, False):
                for source, target in ((plain, own), (own, back)):
                    what = f"{'safetensors -> ckptfmt' if target == own else 'ckptfmt -> safetensors'}"
                    what += ", compared" if verify else ", not compared"
                    taken, peak = timed(PROGRAM, source, target, str(int(verify)))
                    ratios.setdefault(what, []).append(seconds / taken)
                    memory[what] = max(peak, memory.get(what, 0))
    click.echo("speed beside a copy (above 1 is faster): median, least, greatest; private memory in all")
    for what, found in ratios.items():
        click.echo(f"{what:<40} {Spread.of(found)!s:<20} {memory[what] >> 20} MiB")
    click.echo(f"asked for: at least {TARGET}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.convert")
