"""Tables of a run, for the terminal and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from rich.table import Table as RichTable

from benchmarks.contenders import BY_NAME, CONTENDERS
from benchmarks.operations import (
    BASELINE,
    LIMITS,
    MEMORY_TARGETS,
    OPERATIONS,
    OURS,
    SPEED_TARGETS,
    TIME_TARGETS,
    Operation,
    SpeedTarget,
)
from benchmarks.results import Results, Spread

ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header and rows of text: rendered in two ways."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", f"| {' | '.join(self.header)} |", f"|---|{'---:|' * (len(self.header) - 1)}"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def rich(self) -> RichTable:
        table = RichTable(title=self.title, title_justify="left")
        for index, column in enumerate(self.header):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row, style="bold" if row[0] == OURS else None)
        return table


def time_text(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


def _mebibytes(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


def ratio_text(spread: Spread | None) -> str:
    return f"{spread.median:.2f} ({spread.least:.2f} to {spread.greatest:.2f})" if spread else ABSENT


def _verdict(holds: bool) -> str:
    return "met" if holds else "MISSED"


TITLES = {operation.name: operation.title for operation in OPERATIONS}


def _share(results: Results, operation: str) -> Spread | None:
    """What part of the machine's own limit is reached."""
    return results.beside(operation, OURS, results.fastest(operation, LIMITS))


def _speed_target(results: Results, target: SpeedTarget) -> tuple[str, ...]:
    rival = next((name for name in results.contenders(target.operation) if name in target.rivals), None)
    ratio, asked = results.beside(target.operation, OURS, rival), f"≥ {target.needed:g}"
    share = _share(results, target.operation) if target.share else None
    holds = ratio is not None and ratio.median >= target.needed
    if target.share:
        asked += f" or {target.share:g} of the limit"
        holds = holds or (share is not None and share.median >= target.share)
    verdict = _verdict(holds) if ratio else "not measured"
    return TITLES[target.operation], rival or ABSENT, ratio_text(ratio), ratio_text(share), asked, verdict


def targets(results: Results) -> Table:
    """What ckptfmt is asked to reach, and whether it did."""
    rows = [_speed_target(results, target) for target in SPEED_TARGETS]
    for target in TIME_TARGETS:
        seconds = list(results.seconds(target.operation, OURS).values())
        verdict = _verdict(median(seconds) <= target.seconds) if seconds else "not measured"
        figure = time_text(median(seconds)) if seconds else ABSENT
        rows.append((TITLES[target.operation], ABSENT, figure, ABSENT, f"≤ {time_text(target.seconds)}", verdict))
    for memory in MEMORY_TARGETS:
        footprint, limit = results.footprint(memory.operation, OURS), memory.limit(results.tree_bytes["llama"])
        figure = _mebibytes(footprint.resident) if footprint else ABSENT
        verdict = _verdict(footprint.resident <= limit) if footprint else "not measured"
        title = f"Memory added by {memory.operation}, {memory.trees:g} trees + {memory.mebibytes} MiB"
        rows.append((title, ABSENT, figure, ABSENT, f"≤ {_mebibytes(limit)}", verdict))
    header = ("figure", "beside", OURS, "of the machine's limit", "asked for", "verdict")
    return Table(f"Targets: {OURS}", header, tuple(rows))


def _rivals(results: Results, operation: str) -> list[tuple[Spread, str]]:
    """Each library in its face that is fastest at an operation, with the speed beside it, the worst line first."""
    libraries = dict.fromkeys(BY_NAME[name].library for name in results.contenders(operation))
    faces = [results.fastest(operation, each) for each in libraries if each != LIMITS and not each.startswith(OURS)]
    found = [(results.beside(operation, OURS, face), face) for face in faces]
    return sorted(((ratio, face) for ratio, face in found if ratio and face), key=lambda pair: pair[0].median)


def worst(results: Results) -> Table:
    """The rows that README shows: for each figure safetensors, and the library that comes out best beside us."""
    rows = []
    for operation in OPERATIONS:
        rivals, face = _rivals(results, operation.name), results.fastest(operation.name, BASELINE)
        if rivals:
            ratio, rival = rivals[0]
            beside = (face or ABSENT, ratio_text(results.ratio(operation.name, OURS)))
            share = ratio_text(_share(results, operation.name))
            rows.append((ratio.median, (operation.title, rival, ratio_text(ratio), *beside, share)))
    header = ("figure", "worst line: beside", OURS, f"{BASELINE}, its fastest face", OURS, "of the machine's limit")
    return Table("The worst line of each figure, the worst of all first", header, tuple(row for _, row in sorted(rows)))


def every_peer(results: Results) -> Table:
    """Every library in its fastest face."""
    rows = [
        (operation.title, face, ratio_text(ratio))
        for operation in OPERATIONS
        for ratio, face in _rivals(results, operation.name)
    ]
    return Table("Beside every library, in the face that is fastest", ("figure", "face", OURS), tuple(rows))


def _operation(results: Results, operation: Operation) -> Table:
    rows = []
    for name in results.contenders(operation.name):
        seconds = list(results.seconds(operation.name, name).values())
        spread = f"{time_text(min(seconds))} to {time_text(max(seconds))}"
        speed = f"{results.tree_bytes[operation.state] / median(seconds) / 1e9:.2f}" if operation.throughput else ""
        ratio = ratio_text(results.ratio(operation.name, name))
        cells = [name, time_text(median(seconds)), spread, speed, ratio, str(len(seconds))]
        rows.append(tuple(cell for cell in cells if cell))
    face = results.fastest(operation.name, BASELINE) or BASELINE
    rate = ["GB/s"] if operation.throughput else []
    header = ("contender", "median", "least to greatest", *rate, f"speed beside {face}", "rounds")
    return Table(operation.title, header, tuple(rows))


def _memory(results: Results) -> Table:
    names = dict.fromkeys(footprint.contender for footprint in results.footprints)
    rows = []
    for name in names:
        cells = [name]
        for operation in ("save", "load"):
            footprint = results.footprint(operation, name)
            figures = (footprint.resident, footprint.anonymous) if footprint else ()
            cells += [_mebibytes(figure) for figure in figures] or [ABSENT, ABSENT]
        rows.append(tuple(cells))
    header = ("contender", "save: resident", "save: anonymous", "eager load: resident", "eager load: anonymous")
    title = f"Peak memory above the baseline, of a tree of {_mebibytes(results.tree_bytes['llama'])}"
    return Table(title, header, tuple(rows))


def _sizes(results: Results, state: str) -> Table:
    sizes, tree = results.stored_bytes[state], results.tree_bytes[state]
    rows = [(name, f"{size / 1e6:,.1f} MB", f"{size / tree:.3f}") for name, size in sizes.items()]
    return Table(f"Size on disk: {state}", ("contender", "size", "of the tree"), tuple(rows))


def tables(results: Results) -> list[Table]:
    """All tables of a run, the targets and the worst lines first."""
    measured = [operation for operation in OPERATIONS if results.contenders(operation.name)]
    middle = [_operation(results, operation) for operation in measured]
    tail = [_memory(results)] if results.footprints else []
    return [
        targets(results),
        worst(results),
        every_peer(results),
        *middle,
        *tail,
        *(_sizes(results, state) for state in results.stored_bytes),
    ]


def markdown(results: Results) -> str:
    """The whole report."""
    took_part = {sample.contender for sample in results.samples}
    parts = [
        "# Benchmark: ckptfmt beside its peers\n",
        *(f"- {key}: {value}" for key, value in results.setting.items()),
        "\n*Speed beside*: the other's time divided by the contender's in the same round; above 1 is faster.",
        f"Of {BASELINE} it is the face that is fastest at the operation by its median. Quoted is the median over the",
        "rounds, with the least and the greatest. The machine's limits are plain calls of the system.\n",
        *(table.markdown() for table in tables(results)),
        "## Notes\n",
        *(f"- **{contender.name}**: {contender.note}" for contender in CONTENDERS if contender.name in took_part),
        *(f"- **{absence.contender}** was left out: {absence.reason}" for absence in results.absences),
    ]
    return "\n".join(parts) + "\n"
