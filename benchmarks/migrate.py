"""`python -m benchmarks.migrate`: a migration that only renames, beside a plain copy of the same file.

Interleaved rounds, each migration in a fresh process, the page cache warm; a ratio is the migration's time divided by
the copy's in the same round, so less is better. Nothing is made durable, as the copy is not. In layout `loose` files
are shared; in `file` and `packed` the system copies payloads. Last, all tensors read and verified on the way.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import click

from benchmarks.copying import copied, timed
from benchmarks.disk import remove
from benchmarks.results import Spread
from benchmarks.states import llama

TARGET = 0.5  # of the time of a copy
DOCUMENT = {
    "ckptfmt_migration": 1,
    "schema": "llama",
    "from": "1",
    "to": "2",
    "rules": [{"from": "model.{rest:**}", "to": "decoder.{rest}"}],
    "rest": "keep",
}

PROGRAM = """
import json, sys, time
source, target, document, verify = sys.argv[1:]
import ckptfmt
import ckptfmt.migration, ckptfmt.writing.writer
begin = time.perf_counter()
ckptfmt.migrate(source, target, json.loads(document), schema="2", durable=False, verify=bool(int(verify)))
print(json.dumps(time.perf_counter() - begin))
"""


@click.command()
@click.option("--quick", is_flag=True, help="A far smaller state.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--dir", "parent", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path())
def main(*, quick: bool, rounds: int, parent: Path) -> None:
    """Measure migration beside a copy."""
    import ckptfmt

    ratios: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as name:
        folder = Path(name).resolve()
        arrays = llama(quick=quick).arrays()
        for layout in ("file", "packed", "loose"):
            source, target = folder / layout, folder / "target"
            ckptfmt.save(source, arrays, layout=layout, schema=("llama", "1"), durable=False)
            whole = max((file for file in (source, *source.rglob("*")) if file.is_file()), key=os.path.getsize)
            if layout == "file":
                shutil.copyfile(source, folder / "plain")
            for _ in range(rounds):
                seconds = copied(folder / "plain", target)
                for verify in (False, True):
                    what = f"{layout}, {'read and verified' if verify else 'as stored'}"
                    taken, _ = timed(PROGRAM, source, target, json.dumps(DOCUMENT), str(int(verify)))
                    ratios.setdefault(what, []).append((taken / seconds, taken))
                remove(target)
            click.echo(f"{layout}: {whole.stat().st_size / 1e9:.2f} GB in its largest file; last copy {seconds:.2f} s")
            remove(source)
    click.echo("time of a rename beside a copy (less is better): median, least, greatest; median seconds")
    for what, found in ratios.items():
        spread = Spread.of([ratio for ratio, _ in found])
        click.echo(f"{what:<28} {spread!s:<20} {statistics.median(taken for _, taken in found):.2f} s")
    click.echo(f"asked for: at most {TARGET}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.migrate")
