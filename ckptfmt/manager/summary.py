"""A run in a notebook: its last steps, why each is kept, and what is damaged."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CkptError
from ..markup import ROWS, facts, heading, table
from .policies import Policy
from .retention import read_reasons
from .run import RunDirectory

COLUMNS = ("step", "bytes", "metrics", "kept because, or what is wrong")


def steps_as_html(kind: str, run: RunDirectory, policies: Sequence[Policy] = ()) -> str:
    """The manifests of the steps that are shown are read, and no tensor. It raises nothing and warns of nothing: what
    cannot be listed is said."""
    try:
        steps, reasons, damaged = run.scan().steps, read_reasons(run), run.damaged
        rows = [
            (step.step, step.size, " ".join(f"{name}={value:.6g}" for name, value in step.metrics.items()),
             ", ".join(reasons.get(run.names.name(step.step), ()))) for step in steps[-ROWS:]
        ]  # fmt: skip
    except CkptError as error:
        return heading(kind, run.path) + facts([("error", str(error))])
    pairs = [("steps", len(steps)), ("damaged", len(damaged)), ("keeps", ", ".join(map(str, policies)))]
    page = heading(kind, run.path) + facts(pairs if policies else pairs[:2])
    bad = [(one.step, None, "", one.error.code) for one in damaged[:ROWS]]
    return page + (table(COLUMNS, [*bad, *rows[::-1]][:ROWS], len(steps) + len(damaged)) if bad or rows else "")
