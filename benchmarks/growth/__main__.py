"""`python -m benchmarks.growth`: run the lines, print the tables, write them and the picture."""

from __future__ import annotations

import json
import os
import platform
import signal
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console

from benchmarks.contenders import BY_NAME, missing
from benchmarks.growth import report
from benchmarks.growth.course import Course, Found, Racer
from benchmarks.growth.lines import Line, by_bytes, by_count, by_values

USUAL = ("ckptfmt", "ckptfmt packed", "safetensors.numpy")
COUNTS, MOST = (1_000, 10_000, 100_000), 1_000_000
MEGABYTES, GREATEST = (1, 16, 256, 2_000), 8_000
TENSORS = (512, 2048)
VALUES = (1_000, 20_000, 200_000)
PACKAGES = ("ckptfmt", "safetensors", "numpy")


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(int(word.replace("_", "")) for word in text.split(",") if word)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of whole numbers, as 1000,10000") from error


def _trees(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> tuple[Racer, ...]:
    racers = []
    for word in words:
        name, _, path = word.partition("=")
        tree = Path(path).resolve()
        if not (tree / "ckptfmt" / "__init__.py").exists():
            raise click.BadParameter(f"{word!r}: expected NAME=PATH of a tree with the package ckptfmt in it")
        racers.append(Racer(name, "ckptfmt", tree))
    return tuple(racers)


def _lines(
    counts: tuple[int, ...], tensors: tuple[int, ...], megabytes: tuple[int, ...], values: tuple[int, ...]
) -> tuple[Line, ...]:
    lines = [*(by_count(nbytes, counts) for nbytes in tensors), by_bytes(megabytes), by_values(values)]
    return tuple(line for line in lines if line.points)


def _setting(racers: tuple[Racer, ...], rounds: int, seed: int, cold: bool) -> dict[str, str]:
    trees = [racer.name for racer in racers if racer.contender == "ckptfmt" and racer.name != "ckptfmt"]
    return {
        "ratios": "the other's time by the contender's in the same round, above 1 is faster: median, least, greatest",
        "rounds": f"{rounds}, shuffled at each point; seed {seed}; each figure from a fresh process, imports done",
        "page cache": "dropped before each load and opening" if cold else "warm",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
        ),
    } | ({"ckptfmt of another tree": ", ".join(trees)} if trees else {})


@click.command()
@click.option(
    "--counts", callback=_numbers, help="Numbers of tensors [default: 1000,10000,100000; full: 1000000, too]."
)
@click.option("--tensors", callback=_numbers, help="Bytes of each of them [default: 512,2048].")
@click.option(
    "--sizes", callback=_numbers, help="MB of a tree of few tensors [default: 1,16,256,2000; full: 8000, too]."
)
@click.option(
    "--values", callback=_numbers, help="Numbers of small dicts of plain values [default: 1000,20000,200000]."
)
@click.option("--full", is_flag=True, help="With the ends of the lines, which take long.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--only", multiple=True, type=click.Choice(list(BY_NAME)), help=f"Contenders [default: {', '.join(USUAL)}]."
)
@click.option("--tree", "trees", multiple=True, callback=_trees, help="NAME=PATH: the ckptfmt of another tree, too.")
@click.option("--seed", default=1, show_default=True, help="Of the order.")
@click.option("--cold", is_flag=True, help="Drop the files from the page cache before each load and opening.")
@click.option("--dir", "parent", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path())
@click.option("--out", type=click.Path(path_type=Path), help="A folder for growth.md, growth.png and growth.json.")
def main(
    *,
    counts: tuple[int, ...] | None,
    tensors: tuple[int, ...] | None,
    sizes: tuple[int, ...] | None,
    values: tuple[int, ...] | None,
    full: bool,
    rounds: int,
    only: tuple[str, ...],
    trees: tuple[Racer, ...],
    seed: int,
    cold: bool,
    parent: Path,
    out: Path | None,
) -> None:
    """Measure how times grow. An empty list (--sizes "") leaves a line out."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a terminated run, too, shows what it has
    console = Console(width=max(150, Console().width))
    names = [name for name in only or USUAL if not missing(BY_NAME[name])]
    racers = (*(Racer(name, name) for name in names), *trees)
    lines = _lines(
        counts if counts is not None else (*COUNTS, MOST) if full else COUNTS,
        tensors if tensors is not None else TENSORS,
        sizes if sizes is not None else (*MEGABYTES, GREATEST) if full else MEGABYTES,
        values if values is not None else VALUES,
    )
    found = Found(_setting(racers, rounds, seed, cold))
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as folder:
        course = Course(racers, Path(folder).resolve(), found, cold=cold, seed=seed)
        try:
            course.run(lines, rounds, lambda text: console.print(text, style="dim", highlight=False))
        except KeyboardInterrupt:
            found.setting["ended early"] = "rounds are missing"
    shown = [racer.name for racer in racers]
    parts = list(report.tables(found, lines, shown))
    for part in parts:
        console.print(part.rich())
    for absence in found.absences:
        console.print(f"{absence.contender} {absence.reason}", style="yellow", markup=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "growth.md").write_text(report.markdown(found, parts))
        (out / "growth.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
        report.draw(found, lines, shown, out / "growth.png")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.growth")
