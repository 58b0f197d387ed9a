"""What `ckptfmt inspect --lineage` shows: how checkpoints came to be."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from .. import Lineage, LineageStep, lineage
from .console import console
from .json_form import JsonEncoder
from .text import visible

KNOWN = ("operation", "generator", "source")  # of a record, which the line itself says


def look_at_lineage(path: str, *, follow_links: bool, as_json: bool) -> dict[str, Any] | None:
    """Show the lineage of one checkpoint, or give it as JSON; raises what opening it raises."""
    found = lineage(path, follow_links=follow_links)
    if as_json:
        return _document(found)
    out = console()
    out.print(Text.assemble((visible(found.path), "bold"), f"  sha256 {found.manifest_sha256}"))
    for step in reversed(found.steps):
        out.print(Text.assemble("  made by ", (visible(_what(step)), "bold"), f", {visible(step.generator)}"))
        out.print(Text(f"    from {_source(step)}"))
    if not found.steps:
        out.print("  says nothing of what it was made from")
    return None


def _what(step: LineageStep) -> str:
    match step.record:
        case {"chain": [{"from": start}, *_, {"to": end}], "schema": schema}:
            return f"{step.operation} of {schema} {start} to {end}"
        case {"chain": [{"from": start, "to": end}], "schema": schema}:
            return f"{step.operation} of {schema} {start} to {end}"
        case {"format": str(format)}:
            return f"{step.operation} from {format}"
        case {"lost": list(lost)}:
            return f"{step.operation}, {len(lost)} tensors lost"
    return step.operation


def _source(step: LineageStep) -> str:
    if step.source is None:
        return "what the record does not say"
    if step.path is None:
        return f"sha256 {step.source}, which is not at hand"
    told = "" if step.agrees else ", which says otherwise of what was before"
    return f"{visible(step.path)}, sha256 {step.source}{told}"


def _document(found: Lineage) -> dict[str, Any]:
    return {
        "path": found.path,
        "manifest_sha256": found.manifest_sha256,
        "ok": found.ok,
        "steps": [
            {
                "operation": step.operation,
                "generator": step.generator,
                "source": step.source,
                "path": step.path,
                "agrees": step.agrees,
                "record": JsonEncoder().value({key: one for key, one in step.record.items() if key not in KNOWN}),
            }
            for step in found.steps
        ],
    }
