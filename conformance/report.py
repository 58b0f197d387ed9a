"""Reports of runs: for the terminal, as JSON, as JUnit XML, and as an HTML matrix of implementations and features."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import Any
from xml.etree import ElementTree as Xml

from . import VERSION
from .cases import Case
from .run import BROKEN, FAILED, OUTCOMES, PASSED, SKIPPED, UNSUPPORTED, Result

Runs = dict[str, list[Result]]
_STYLES = {PASSED: "green", FAILED: "bold red", BROKEN: "bold magenta", UNSUPPORTED: "dim", SKIPPED: "yellow"}


def reproduction(name: str, case: Case) -> str:
    """The one line that runs a case again."""
    quoted = f"'{name}'" if " " in name else name
    return f"python -m conformance run --impl {quoted} --case {case.id}" + (" --large" if case.large else "")


def counts(results: Iterable[Result]) -> dict[str, int]:
    found = Counter(result.outcome for result in results)
    return {outcome: found[outcome] for outcome in OUTCOMES}


def summary(results: list[Result]) -> str:
    numbers = ", ".join(f"{count} {outcome}" for outcome, count in counts(results).items() if count)
    return f"{len(results)} cases: {numbers}; {sum(result.seconds for result in results):.1f} s"


def terminal(name: str, results: list[Result], *, quiet: bool = False) -> None:
    """What failed, and the counts; in colours where rich is installed."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        _plain(name, results, quiet)
        return
    console = Console(highlight=False, soft_wrap=True)
    for result in _told(results, quiet):
        console.print(Text.assemble((f"{result.outcome:11}", _STYLES[result.outcome]), (result.case.id, "bold")))
        console.print(Text(_details(name, result)))
    console.print(Text.assemble((name, "bold"), ": ", summary(results)))


def _plain(name: str, results: list[Result], quiet: bool) -> None:
    for result in _told(results, quiet):
        print(f"{result.outcome:11}{result.case.id}\n{_details(name, result)}")
    print(f"{name}: {summary(results)}")


def _told(results: list[Result], quiet: bool) -> list[Result]:
    wanted = (FAILED, BROKEN) if quiet else (FAILED, BROKEN, SKIPPED)
    return [result for result in results if result.outcome in wanted]


def _details(name: str, result: Result) -> str:
    level = "" if result.case.level == "must" else f" (level {result.case.level})"
    lines = [result.case.title, f"{result.message}{level}", f"{' '.join(result.case.spec)}"]
    if result.stderr.strip():
        lines.append(f"stderr: {result.stderr.strip().splitlines()[-1]}")
    if result.outcome != SKIPPED:
        lines.append(reproduction(name, result.case))
    return "\n".join(f"           {line}" for line in lines)


def as_json(runs: Runs) -> str:
    """Suite version, and for each implementation the counts and every case."""
    document: dict[str, Any] = {"suite": VERSION, "implementations": {}}
    for name, results in runs.items():
        document["implementations"][name] = {"counts": counts(results), "cases": [_row(name, r) for r in results]}
    return json.dumps(document, indent=1) + "\n"


def _row(name: str, result: Result) -> dict[str, Any]:
    row: dict[str, Any] = {"id": result.case.id, "level": result.case.level, "spec": result.case.spec}
    row |= {"outcome": result.outcome, "seconds": round(result.seconds, 4)}
    if result.message:
        row["message"] = result.message
    if result.outcome in (FAILED, BROKEN):
        row |= {"reproduce": reproduction(name, result.case), "stderr": result.stderr}
    return row


def as_junit(runs: Runs) -> str:
    """One test suite for each implementation."""
    root = Xml.Element("testsuites")
    for name, results in runs.items():
        numbers = counts(results)
        suite = Xml.SubElement(root, "testsuite", name=name, tests=str(len(results)))
        suite.set("failures", str(numbers[FAILED]))
        suite.set("errors", str(numbers[BROKEN]))
        suite.set("skipped", str(numbers[UNSUPPORTED] + numbers[SKIPPED]))
        for result in results:
            test = Xml.SubElement(suite, "testcase", classname=name, name=result.case.id, time=f"{result.seconds:.4f}")
            tag = {FAILED: "failure", BROKEN: "error", UNSUPPORTED: "skipped", SKIPPED: "skipped"}.get(result.outcome)
            if tag is not None:
                body = Xml.SubElement(test, tag, message=_printable(result.message))
                if result.outcome in (FAILED, BROKEN):
                    body.text = _printable(f"{reproduction(name, result.case)}\n{result.stderr}")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def as_html(runs: Runs) -> str:
    """A matrix: a row for each feature and group of statements, a column for each implementation."""
    groups: dict[str, list[Case]] = {}
    first = next(iter(runs.values()))
    for result in first:
        for key in [*result.case.features, *sorted({identity.partition("-")[0] for identity in result.case.spec})]:
            groups.setdefault(key, []).append(result.case)
    outcomes = {name: {result.case.id: result for result in results} for name, results in runs.items()}
    head = "".join(f"<th>{escape(name)}</th>" for name in runs)
    body = "".join(
        _html_row(key, groups[key], outcomes) for key in sorted(groups, key=lambda key: (key.isupper(), key))
    )
    totals = "".join(f"<td>{escape(summary(results))}</td>" for results in runs.values())
    failures = "".join(_html_failures(name, results) for name, results in runs.items())
    return _PAGE.format(version=VERSION, head=head, body=body, totals=totals, failures=failures)


def _html_row(key: str, cases: list[Case], outcomes: dict[str, dict[str, Result]]) -> str:
    cells = ""
    for results in outcomes.values():
        numbers = counts([results[case.id] for case in cases if case.id in results])
        bad = numbers[FAILED] + numbers[BROKEN]
        kind = "bad" if bad else "good" if numbers[PASSED] else "none"
        text = f"{numbers[PASSED]} / {numbers[PASSED] + bad}" if numbers[PASSED] + bad else "–"
        cells += f'<td class="{kind}">{text}</td>'
    return f"<tr><th>{escape(key)}</th><td>{len(cases)}</td>{cells}</tr>\n"


def _html_failures(name: str, results: list[Result]) -> str:
    bad = [result for result in results if result.outcome in (FAILED, BROKEN)]
    rows = "".join(
        f"<li><b>{escape(r.case.id)}</b> {escape(r.message)}<br><code>{escape(reproduction(name, r.case))}</code></li>"
        for r in bad
    )
    return f"<h2>{escape(name)}</h2><ul>{rows}</ul>" if bad else ""


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>ckptfmt conformance</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #1d2430 }}
table {{ border-collapse: collapse }}
th, td {{ padding: .25rem .8rem; border-bottom: 1px solid #dde2ea; text-align: left }}
td {{ font-variant-numeric: tabular-nums }} .good {{ color: #17603a }} .bad {{ color: #fff; background: #b3261e }}
.none {{ color: #8a93a3 }} code {{ background: #f2f4f7; padding: 0 .3rem }}
</style>
<h1>ckptfmt conformance, suite {version}</h1>
<p>Cases passed, of those that the implementation declares to support; by feature, then by group of statements.</p>
<table><tr><th>feature or group</th><th>cases</th>{head}</tr>
{body}<tr><th>all</th><td></td>{totals}</tr></table>
{failures}</html>
"""
