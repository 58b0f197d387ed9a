"""`python -m benchmarks.frameworks [--quick] [--only TEXT] [--report FOLDER]`

Every contest is a process of its own, or one for each rank, in which both sides take turns, in shuffled order within
each round, after a run of both on a few megabytes. Ratios are taken within the round; the median is shown with least
and greatest. Before each turn the disk is idle, and as much memory as the state has is used and given back, so that
the host's pages are there for either side. Files are in the page cache when they are loaded.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.course import ROOT
from benchmarks.report import Table
from benchmarks.states import STATES

from .contest import CONTESTS, Contest
from .worker import Figures, Job, work

TIMEOUT = 900  # seconds of one contest
PACKAGES = ("torch", "numpy", "jax", "orbax-checkpoint", "tensorstore")
HEADER = ("", "ours", "beside", "times as fast", "asked for", "rounds", "memory added: ours", "beside")


@dataclass(frozen=True, slots=True)
class Row:
    """What a contest found: seconds of the slowest process, and resident bytes that the first process added, by
    side."""

    title: str
    seconds: tuple[tuple[float, float], ...]
    added: tuple[tuple[int, int], ...]

    def cells(self, needed: float) -> tuple[str, ...]:
        ratios = [theirs / ours for ours, theirs in self.seconds]
        middle = statistics.median(ratios)
        times = [f"{statistics.median(side):.2f} s" for side in zip(*self.seconds, strict=True)]
        added = [f"{statistics.median(side) / (1 << 20):,.0f} MiB" for side in zip(*self.added, strict=True)]
        verdict = "" if middle >= needed else " MISSED"
        spread = f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        return self.title, *times, spread, f"≥ {needed:g}{verdict}", str(len(ratios)), *added


def run(number: int, contest: Contest, folder: Path, quick: bool, rounds: int) -> Row:
    """Run a contest in processes of its own."""
    threads = str(max(1, (os.cpu_count() or 1) // contest.ranks))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "JAX_PLATFORMS": "cpu"}
    meeting = str(folder / "meeting") if contest.cluster == "torch" else f"127.0.0.1:{_free_port()}"
    processes = []
    for rank in range(contest.ranks):
        job = json.dumps(asdict(Job(number, str(folder), quick, rounds, rank, meeting)))
        command = [sys.executable, "-m", "benchmarks.frameworks", "--job", job]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    try:
        outcomes = [process.communicate(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, words) in zip(processes, outcomes, strict=True):
        if process.returncode:
            raise click.ClickException(f"{contest.title} failed:\n{words[-4000:]}")
    ranks: list[Figures] = [json.loads(words.splitlines()[-1]) for words, _ in outcomes]
    slowest = [tuple(max(rank[n][side][0] for rank in ranks) for side in (0, 1)) for n in range(rounds)]
    added = [tuple(pair[side][1] for side in (0, 1)) for pair in ranks[0]]
    return Row(contest.title, tuple(slowest), tuple(added))  # type: ignore[arg-type]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _keep(rows: list[Row], setting: dict[str, str], report: Path) -> None:
    """Put rows into the report in place of what it has of these contests."""
    figures = report / "frameworks.json"
    known = json.loads(figures.read_text()) if figures.exists() else {}
    kept = {row["title"]: row for row in known.get("rows", [])} | {row.title: asdict(row) for row in rows}
    titles = [contest.title for contest in CONTESTS]
    ordered = [kept[title] for title in titles if title in kept]
    figures.write_text(json.dumps({"setting": setting, "rows": ordered}, indent=1) + "\n")
    table = _table([Row(**row) for row in ordered])
    facts = "".join(f"- {name}: {value}\n" for name, value in setting.items())
    text = f"# Benchmark: the adapters beside what their frameworks have\n\n{facts}\n{__doc__}\n{table.markdown()}"
    (report / "frameworks.md").write_text(text)


def _table(rows: list[Row]) -> Table:
    needed = {contest.title: contest.needed for contest in CONTESTS}
    return Table("Contests", HEADER, tuple(row.cells(needed[row.title]) for row in rows))


def _setting() -> dict[str, str]:
    def found(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"no {package}"

    state = STATES["llama"](quick=False)
    return {
        "state": f"Llama-shaped, {len(state.shapes)} tensors of bfloat16, {state.nbytes / 1e9:.2f} GB",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *map(found, PACKAGES)]),
    }


@click.command()
@click.option("--quick", is_flag=True, help="A small state: too small for verdicts, for a glance only.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", default="", help="Only contests whose title holds this text.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where checkpoints are written.")
@click.option("--report", type=click.Path(path_type=Path, exists=True), help="Where frameworks.md is kept up to date.")
@click.option("--job", hidden=True)
def main(quick: bool, rounds: int, only: str, folder: Path | None, report: Path | None, job: str | None) -> None:
    """Measure the adapters beside the NumPy path and what their frameworks have themselves."""
    if job is not None:
        print(json.dumps(work(Job(**json.loads(job)))))
        return
    if quick and report is not None:
        raise click.UsageError("--quick is for a glance, and not for a report")
    rows = []
    for number, contest in enumerate(CONTESTS):
        if only in contest.title:
            with tempfile.TemporaryDirectory(dir=folder, prefix="ckptfmt-bench-") as scratch:
                rows.append(run(number, contest, Path(scratch), quick, rounds))
            print(*rows[-1].cells(contest.needed)[:5], sep="  ", flush=True)
            if report is not None:
                _keep(rows, _setting(), report)
    Console(width=160).print(_table(rows).rich())


if __name__ == "__main__":
    main()
