"""Tables of a run, for the terminal and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from rich.table import Table as RichTable

from benchmarks.contenders import CONTENDERS
from benchmarks.operations import BASELINE, MEMORY_TARGETS, OPERATIONS, OURS, SPEED_TARGETS, Operation
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


def _verdict(figure: float, needed: float, aimed: float) -> str:
    return "met" if figure >= aimed else "needed met, aim missed" if figure >= needed else "MISSED"


def targets(results: Results) -> Table:
    """What ckptfmt is asked to reach, and whether it did."""
    titles = {operation.name: operation.title for operation in OPERATIONS}
    rows = []
    for speed in SPEED_TARGETS:
        ratio = results.ratio(speed.operation, OURS)
        verdict = _verdict(ratio.median, speed.needed, speed.aimed) if ratio else "not measured"
        rows.append((titles[speed.operation], ratio_text(ratio), f"≥ {speed.needed:g}", f"≥ {speed.aimed:g}", verdict))
    for memory in MEMORY_TARGETS:
        footprint, limit = results.footprint(memory.operation, OURS), memory.limit(results.tree_bytes["llama"])
        figure = _mebibytes(footprint.resident) if footprint else ABSENT
        verdict = ("met" if footprint.resident <= limit else "MISSED") if footprint else "not measured"
        title = f"Memory added by {memory.operation}, {memory.trees:g} trees + {memory.mebibytes} MiB"
        rows.append((title, figure, f"≤ {_mebibytes(limit)}", "", verdict))
    header = ("figure", f"{OURS} beside {BASELINE}", "needed", "aimed", "verdict")
    return Table(f"Targets: {OURS}", header, tuple(rows))


def _operation(results: Results, operation: Operation) -> Table:
    rows = []
    for name in results.contenders(operation.name):
        seconds = list(results.seconds(operation.name, name).values())
        speed = f"{results.tree_bytes[operation.state] / median(seconds) / 1e9:.2f}" if operation.throughput else ""
        cells = [
            name,
            time_text(median(seconds)),
            speed,
            ratio_text(results.ratio(operation.name, name)),
            str(len(seconds)),
        ]
        rows.append(tuple(cell for cell in cells if cell))
    header = ("contender", "median", *(["GB/s"] if operation.throughput else []), f"speed beside {BASELINE}", "rounds")
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
    """All tables of a run, the targets first."""
    measured = [operation for operation in OPERATIONS if results.contenders(operation.name)]
    middle = [_operation(results, operation) for operation in measured]
    tail = [_memory(results)] if results.footprints else []
    return [targets(results), *middle, *tail, *(_sizes(results, state) for state in results.stored_bytes)]


def markdown(results: Results) -> str:
    """The whole report."""
    took_part = {sample.contender for sample in results.samples}
    parts = [
        "# Benchmark: ckptfmt beside its peers\n",
        *(f"- {key}: {value}" for key, value in results.setting.items()),
        f"\n*Speed beside {BASELINE}*: its time divided by the contender's in the same round; above 1 is faster.",
        "Quoted is the median over the rounds, with the least and the greatest.\n",
        *(table.markdown() for table in tables(results)),
        "## Notes\n",
        *(f"- **{contender.name}**: {contender.note}" for contender in CONTENDERS if contender.name in took_part),
        *(f"- **{absence.contender}** was left out: {absence.reason}" for absence in results.absences),
    ]
    return "\n".join(parts) + "\n"
