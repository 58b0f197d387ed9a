"""Traceability, both ways: statements of SPEC.md and its companions to the cases that test them, and cases to
statements that exist."""

from __future__ import annotations

import json

from . import HERE
from .cases import Case, read_cases
from .spec import binding, classes, codes, statements

UNTESTABLE = HERE / "untestable.json"
PAGE = HERE.parent / "docs" / "conformance.md"
START, END = "<!-- statements: python -m conformance coverage --write -->\n", "<!-- end of statements -->"


def untestable() -> dict[str, str]:
    """Statements that no case can test: id to reason."""
    found: dict[str, str] = json.loads(UNTESTABLE.read_text())
    return found


def tested() -> dict[str, list[Case]]:
    """Statement to the cases that cite it."""
    found: dict[str, list[Case]] = {}
    for case in read_cases(large=True):
        for identity in case.spec:
            found.setdefault(identity, []).append(case)
    return found


def problems() -> list[str]:
    """What is wrong with the traceability; nothing if all is well."""
    by_statement, excused, known = tested(), untestable(), statements()
    found = [
        f"{identity} says MUST, and no case tests it. Add a case that cites {identity} to conformance/catalogue/"
        " (its __init__.py says how), and run `python -m conformance.make` and `python -m conformance coverage"
        " --write`; if none can test it, say why in conformance/untestable.json"
        for identity in sorted(binding() - by_statement.keys() - excused.keys())
    ]
    found += [
        f"{identity} is tested by {by_statement[identity][0].id}, and listed as untestable: strike it from"
        f" conformance/untestable.json"
        for identity in sorted(excused.keys() & by_statement.keys())
    ]
    found += [
        f"{identity} is listed in conformance/untestable.json, and SPEC.md does not have it: strike it"
        for identity in sorted(excused.keys() - known.keys())
    ]
    found += [
        f"{cases[0].id} cites {identity}, which SPEC.md does not have: cite another in conformance/catalogue/, and run"
        f" `python -m conformance.make`"
        for identity, cases in by_statement.items()
        if identity not in known
    ]
    expected = {code for case in read_cases(large=True) for code in case.expect.get("error", {}).get("any_of", [])}
    found += [
        f"a case expects the code {code}, which SPEC.md does not have" for code in sorted(expected - codes().keys())
    ]
    return found


def table() -> str:
    """The statements as Markdown: whom each binds, how many cases test it, and why none can."""
    by_statement, excused = tested(), untestable()
    class_of = {identity: name for name, identities in classes().items() for identity in identities}
    lines = ["| statement | class | cases | for example |", "|---|---|---:|---|"]
    for identity in statements():
        cases = by_statement.get(identity, [])
        shown = ", ".join(f"`{case.id}`" for case in cases[:2])
        words = shown or (f"untestable: {excused[identity]}" if identity in excused else "no MUST")
        lines.append(f"| {identity} | {class_of.get(identity, '')} | {len(cases)} | {words} |")
    return "\n".join(lines)


def page() -> str:
    """docs/conformance.md with the table of today."""
    head, _, rest = PAGE.read_text().partition(START)
    return f"{head}{START}{table()}\n{END}{rest.partition(END)[2]}"


def main(*, write: bool) -> int:
    """The command `coverage`."""
    if write:
        PAGE.write_text(page())
    else:
        print(table())
    found = problems()
    print("\n".join(found) or f"\nall {len(binding())} binding statements are tested, or listed with a reason")
    return 1 if found else 0
