"""`python -m benchmarks`: run the contenders, print the tables, write report and plot."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import plot, report
from benchmarks.contenders import BY_NAME, CONTENDERS, missing
from benchmarks.course import ROOT, Course, Plan
from benchmarks.operations import BASELINE
from benchmarks.results import Absence, Results
from benchmarks.states import STATES

PACKAGES = (
    "ckptfmt",
    "safetensors",
    "fastsafetensors",
    "runai-model-streamer",
    "tensorizer",
    "torch",
    "numpy",
    "ml_dtypes",
    "h5py",
    "zarr",
    "tensorstore",
    "orbax-checkpoint",
)
FACES = tuple(contender.name for contender in CONTENDERS if contender.library == BASELINE)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"


def _setting(plan: Plan) -> dict[str, str]:
    llama = STATES["llama"](quick=plan.quick)
    return {
        "states": "; ".join(
            f"{s.title}: {len(s.shapes):,} {s.dtype.name} tensors, {s.nbytes / 1e9:.2f} GB"
            for s in (llama, STATES["small"](quick=plan.quick))
        ),
        "rounds": f"{plan.rounds}, slow contenders {min(plan.slow_rounds, plan.rounds)}; seed {plan.seed}",
        "page cache": "dropped before each load and slice" if plan.cold else "warm",
        "size": "quick: too small for verdicts, for a glance only" if plan.quick else "full",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *map(_version, PACKAGES)]),
    }


def _present(console: Console, results: Results, names: tuple[str, ...]) -> None:
    for contender in CONTENDERS:
        lacking = missing(contender)
        if lacking and contender.name in names:
            results.absences.append(Absence(contender.name, f"{lacking} is not installed"))
            console.print(f"[yellow]{contender.name} is left out: {lacking} is not installed[/]")


@click.command()
@click.option("--quick", is_flag=True, help="A far smaller state and fewer rounds, for a glance.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/results"), show_default=True)
@click.option(
    "--dir",
    "parent",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="Where a temporary folder for the checkpoints is made (and removed): the disk that is measured.",
)
@click.option("--rounds", type=click.IntRange(1), help="Rounds [default: 5, quick 2].")
@click.option("--slow-rounds", type=click.IntRange(1), help="Rounds of the slow contenders [default: 3, quick 1].")
@click.option("--seed", default=1, show_default=True, help="Of the order within the rounds.")
@click.option("--cold", is_flag=True, help="Drop the files from the page cache before each load and slice.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(BY_NAME)), help=f"Only these and the faces of {BASELINE}."
)
def main(
    *,
    quick: bool,
    out: Path,
    parent: Path,
    rounds: int | None,
    slow_rounds: int | None,
    seed: int,
    cold: bool,
    only: tuple[str, ...],
) -> None:
    """Measure ckptfmt beside its peers: interleaved rounds, ratios within a round."""
    # An installed package has its bytecode; without it a fresh process would time the compiler.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # So that a terminated run, too, removes its gigabytes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    names = (*only, *FACES) if only else tuple(BY_NAME)
    contenders = tuple(c for c in CONTENDERS if c.name in names and not missing(c))
    plan = Plan(contenders, quick, rounds or (2 if quick else 5), slow_rounds or (1 if quick else 3), seed, cold)
    sizes = {name: make(quick=quick).nbytes for name, make in STATES.items()}
    if shutil.disk_usage(parent).free < 3 * max(sizes.values()):
        raise click.ClickException(f"less than {3 * max(sizes.values()) / 1e9:.1f} GB free in {parent}")
    results = Results(_setting(plan), sizes, slice_bytes=0)
    _present(console, results, names)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Nothing draws by itself while a contender is timed.
    with (
        tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as folder,
        Progress(*columns, console=console, auto_refresh=False) as progress,
    ):
        task = progress.add_task("start", total=plan.turns() + 1)

        def step(description: str) -> None:
            progress.update(task, advance=1, description=description, refresh=True)
            if not console.is_terminal:
                console.print(description)

        Course(plan, Path(folder).resolve(), results, step).run()
        step("done")

    results.setting["slice"] = f"{results.slice_bytes / 1e6:.2f} MB: 1 % of the rows of the embedding table"
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(report.markdown(results))
    (out / "figures.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    plot.draw(results, out / "report.png")
    for table in report.tables(results):
        console.print(table.rich())
    for absence in results.absences:
        console.print(f"{absence.contender} was left out: {absence.reason}", style="yellow", markup=False)
    console.print(f"Written: {out / 'report.md'}, report.png, figures.json")


if __name__ == "__main__":
    main(prog_name=f"python -m {ROOT.joinpath('benchmarks').name}")
