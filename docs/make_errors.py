"""Write docs/errors.md, the page of error codes, from ckptfmt/error_codes.py and docs/errors.toml."""

from __future__ import annotations

import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

from ckptfmt.errors import CODES, Code

HERE = Path(__file__).parent
PAGE, TABLE = HERE / "errors.md", HERE / "errors.toml"

# what stands for several calls in the table
CALLS = {
    "readers": (
        *("open", "load", "load_into", "verify", "migrate", "upgrade", "repair", "convert", "diff"),
        *("report", "stats"),
    ),
    "readers of bytes": ("load", "load_into", "Tensor[...]", "migrate", "convert", "diff", "report", "stats"),
    "writers": ("save", "migrate", "upgrade", "repair", "convert"),
}
PHASES = {
    "locate": "Finding a checkpoint",
    "storage": "Disks, stores and other processes",
    "commit": "The commit record",
    "manifest": "The manifest",
    "chunk": "Chunks and objects",
    "select": "Paths, patterns, targets and bases",
    "save": "Saving",
    "recompute": "Recomputing",
    "migrate": "Migrations",
    "sign": "Signatures",
    "convert": "Other formats",
}
HIDDEN = ("Exception", "BaseException", "object")  # bases that say nothing
HEAD = """\
# Error codes

<!-- written by docs/make_errors.py from ckptfmt/error_codes.py and docs/errors.toml: do not edit -->

Every error is a `CkptError`; `error.code` is one of these, which are stable. Its class says what a caller can do
([the table](guide.md#when-something-is-wrong)), its message where it is and what was found. On the command line the
code stands in brackets at the end of the message, and under `error.code` of `--json`; exit code 1 is a `CorruptError`,
2 any other.
"""


def page(codes: dict[str, Code], table: dict[str, Any]) -> str:
    """The page; raises KeyError where the table lacks a code."""
    order = list(PHASES)
    rows = sorted(codes.items(), key=lambda item: order.index(item[1].phase))  # stable: as they stand in the registry
    parts = [HEAD]
    for phase, found in groupby(rows, key=lambda item: item[1].phase):
        parts.append(f"## {PHASES[phase]}\n")
        parts += [_entry(code, row, table[code]) for code, row in found]
    return "\n".join(parts)


def _entry(code: str, row: Code, more: dict[str, Any]) -> str:
    bases = " ← ".join(f"`{kind.__name__}`" for kind in row.error.__mro__[:-1] if kind.__name__ not in HIDDEN)
    calls = ", ".join(f"`{call}`" for call in calls_of(more))
    return f"""\
### `{code}`

{row.meaning[0].upper()}{row.meaning[1:]}. {bases}

- Cause: {more["cause"]}
- Cure: {row.advice}.
- Raised by: {calls}
"""


def calls_of(entry: dict[str, Any]) -> list[str]:
    """The calls that raise a code, each once."""
    return list(dict.fromkeys(name for call in entry["calls"] for name in CALLS.get(call, (call,))))


def main() -> None:
    PAGE.write_text(page(CODES, tomllib.loads(TABLE.read_text())))


if __name__ == "__main__":
    main()
