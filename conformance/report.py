"""Reports of runs: for the terminal, as JSON, as JUnit XML, and as an HTML matrix of implementations and features."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import Any
from xml.etree import ElementTree as Xml

from . import VERSION, spec
from .cases import Case
from .run import BROKEN, FAILED, OUTCOMES, PASSED, SKIPPED, UNSUPPORTED, Result

Runs = dict[str, list[Result]]
DETAILED = 25  # results that the terminal tells in full
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
    told = _told(results, quiet)
    for result in told[:DETAILED]:
        console.print(Text.assemble((f"{result.outcome:11}", _STYLES[result.outcome]), (result.case.id, "bold")))
        console.print(Text(_details(name, result)))
    if rest := _rest(told):
        console.print(Text(rest))
    console.print(Text.assemble((name, "bold"), ": ", summary(results)))


def _plain(name: str, results: list[Result], quiet: bool) -> None:
    told = _told(results, quiet)
    for result in told[:DETAILED]:
        print(f"{result.outcome:11}{result.case.id}\n{_details(name, result)}")
    if rest := _rest(told):
        print(rest)
    print(f"{name}: {summary(results)}")


def _told(results: list[Result], quiet: bool) -> list[Result]:
    wanted = (FAILED, BROKEN) if quiet else (FAILED, BROKEN, SKIPPED)
    return [result for result in results if result.outcome in wanted]


def _rest(told: list[Result]) -> str:
    """What is not told in full: how often each message came, the most frequent first."""
    often = Counter(re.split(r": at |; | \(", result.message)[0][:100] for result in told[DETAILED:])
    lines = [f"{count:7} × {message}" for message, count in often.most_common(10)]
    head = f"and {len(told) - DETAILED} more; --json, --junit and --html have them all"
    return "\n".join([head, *lines]) if often else ""


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
    """A matrix: a row for each feature and section of statements, a column for each implementation."""
    features: dict[str, list[Case]] = {}
    sections: dict[str, list[Case]] = {}
    for result in next(iter(runs.values())):
        for feature in result.case.features:
            features.setdefault(feature, []).append(result.case)
        for group in {identity.partition("-")[0] for identity in result.case.spec}:
            sections.setdefault(group, []).append(result.case)
    outcomes = {name: {result.case.id: result for result in results} for name, results in runs.items()}
    known = spec.sections()
    order = {group: number for number, group in enumerate(known)}
    body = _html_heading("Features that an implementation declares", len(runs))
    body += "".join(_html_row(key, features[key], outcomes) for key in sorted(features))
    body += _html_heading("Statements of SPEC.md", len(runs))
    for group in sorted(sections, key=lambda key: order.get(key, 99)):
        body += _html_row(group, sections[group], outcomes, known.get(group, ""))
    return _PAGE.format(
        version=VERSION,
        count=len(next(iter(runs.values()))),
        head="".join(f"<th>{escape(name)}</th>" for name in runs),
        totals="".join(_html_total(results) for results in runs.values()),
        body=body,
        failures="".join(_html_failures(name, results) for name, results in runs.items()),
    )


def _html_heading(text: str, columns: int) -> str:
    return f'<tr class="part"><th colspan="{columns + 2}">{text}</th></tr>\n'


def _html_total(results: list[Result]) -> str:
    numbers = counts(results)
    bad = numbers[FAILED] + numbers[BROKEN]
    verdict = '<b class="bad">fails</b>' if bad else '<b class="good">passes</b>'
    told = ", ".join(f"{count} {outcome}" for outcome, count in numbers.items() if count)
    return f"<td>{verdict}<br><small>{told}</small></td>"


def _html_row(key: str, cases: list[Case], outcomes: dict[str, dict[str, Result]], title: str = "") -> str:
    cells = ""
    for results in outcomes.values():
        numbers = counts([results[case.id] for case in cases if case.id in results])
        bad = numbers[FAILED] + numbers[BROKEN]
        kind = "bad" if bad else "good" if numbers[PASSED] else "none"
        text = f"{numbers[PASSED]} / {numbers[PASSED] + bad}" if numbers[PASSED] + bad else "–"
        cells += f'<td class="{kind}">{text}</td>'
    name = f"{escape(key)} <small>{escape(title)}</small>" if title else escape(key)
    return f"<tr><th>{name}</th><td>{len(cases)}</td>{cells}</tr>\n"


def _html_failures(name: str, results: list[Result]) -> str:
    bad = [result for result in results if result.outcome in (FAILED, BROKEN)]
    rows = "".join(
        f"<li><b>{escape(r.case.id)}</b> {escape(r.message)}<br><code>{escape(reproduction(name, r.case))}</code></li>"
        for r in bad
    )
    return f"<h2>{escape(name)}</h2><ul>{rows}</ul>" if bad else ""


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ckptfmt conformance</title>
<style>
:root {{ --ink: #1d2430; --soft: #8a93a3; --line: #e3e7ee; --good: #17603a; --bad: #b3261e }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink) }}
body {{ max-width: 75rem; margin: 2.5rem auto; padding: 0 1.5rem }}
h1 {{ margin-bottom: .2rem }} p {{ color: #4a5364; margin-top: 0 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ padding: .22rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }}
thead th, thead td {{ position: sticky; top: 0; background: #fff; border-bottom: 2px solid var(--ink) }}
tbody th {{ font-weight: 500 }} tbody th small {{ color: var(--soft); margin-left: .4rem }}
.part th {{ padding-top: 1.4rem; font-weight: 700; border-bottom-color: var(--soft) }}
td {{ font-variant-numeric: tabular-nums }} td:nth-child(2) {{ color: var(--soft) }}
tbody tr + tr td {{ white-space: nowrap }}
tbody tr:not(.part):hover {{ background: #f6f8fb }}
td.good, b.good {{ color: var(--good) }} td.bad, b.bad {{ color: #fff; background: var(--bad); font-weight: 600 }}
b {{ padding: 0 .35rem; margin-left: -.35rem; border-radius: .2rem }}
td.none {{ color: var(--soft) }} code {{ background: #f2f4f7; padding: 0 .3rem }} li {{ margin-bottom: .6rem }}
</style>
<h1>ckptfmt conformance</h1>
<p>Suite {version}, {count} cases. A cell says how many cases passed, of those that the implementation says it supports;
– where it supports none.</p>
<table><thead><tr><th></th><th>cases</th>{head}</tr></thead>
<tbody><tr><th>all</th><td>{count}</td>{totals}</tr>
{body}</tbody></table>
{failures}</html>
"""
