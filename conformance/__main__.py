"""`python -m conformance`: run the cases against an implementation, list them, show one."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from . import HERE, VERSION, coverage, report
from .cases import read_cases
from .process import Broken, Implementation
from .run import BROKEN, FAILED, PASSED, Result, run_cases

KNOWN = HERE / "implementations" / "implementations.json"


class Unusable(Exception):
    """What was asked of the runner cannot be done."""


def command_of(name: str) -> list[str]:
    """How an implementation is started: by its name in implementations.json, or a command line."""
    known: dict[str, list[str]] = json.loads(KNOWN.read_text())
    words = known.get(name) or shlex.split(name)
    if not words:
        raise Unusable("an empty command starts nothing")
    places = {"{python}": sys.executable, "{here}": str(HERE)}
    return [re.sub(r"\{(?:python|here)\}", lambda found: places[found[0]], word) for word in words]


def implementation(name: str, timeout: float) -> Implementation:
    """An implementation, not yet started; Python ones find this package."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    found = Implementation(command_of(name), timeout, {"PYTHONPATH": path})
    found.name = name
    return found


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("--version", action="version", version=f"ckptfmt conformance suite {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="put cases to an implementation; status 0 if all is as expected")
    run.add_argument("--impl", action="append", required=True, help="a name of implementations.json, or a command line")
    run.add_argument("--case", action="append", default=[], help="only cases whose id begins so")
    run.add_argument("--large", action="store_true", help="also cases with inputs of gigabytes")
    run.add_argument("--timeout", type=float, default=10.0, help="seconds for one reply (10)")
    run.add_argument("--reader", action="append", default=[], help="an implementation that reads what --impl writes")
    run.add_argument("--known-failures", type=Path, help="ids, one a line: these must fail, and no others")
    run.add_argument("--json", type=Path, help="write the results as JSON")
    run.add_argument("--junit", type=Path, help="write the results as JUnit XML")
    run.add_argument("--html", type=Path, help="write a matrix of implementations and features")
    run.add_argument("--quiet", action="store_true", help="say only what failed")
    list_ = commands.add_parser("list", help="the cases: id, level, statements, title")
    list_.add_argument("case", nargs="*", help="only cases whose id begins so")
    show = commands.add_parser("show", help="one case, whole")
    show.add_argument("case")
    table = commands.add_parser(
        "coverage", help="statements and the cases that test them; status 1 if one is not tested"
    )
    table.add_argument("--write", action="store_true", help="write the table into docs/conformance.md")
    return parser


def run(options: argparse.Namespace) -> int:
    """The command `run`."""
    cases = read_cases(options.case, large=options.large)
    if not cases:
        raise Unusable(f"no case begins with {' or '.join(options.case)}")
    known = set(options.known_failures.read_text().split()) if options.known_failures else set()
    for path in filter(None, (options.json, options.junit, options.html)):
        path.touch()  # before the run, not after it
    runs: dict[str, list[Result]] = {}
    for name in options.impl:
        with ExitStack() as stack:
            main, *readers = [
                stack.enter_context(implementation(one, options.timeout)) for one in (name, *options.reader)
            ]
            for reader in readers:
                try:
                    reader.start()
                except Broken as broken:
                    raise Unusable(f"the reader {reader.name} is of no use: {broken.how}: {broken.message}") from broken
            runs[name] = run_cases(main, cases, readers)
        for path, render in (
            (options.json, report.as_json),
            (options.junit, report.as_junit),
            (options.html, report.as_html),
        ):
            if path is not None:  # of those that have run: nothing is lost if the terminal goes away, as with `| head`
                path.write_text(render(runs), encoding="utf-8")
        report.terminal(name, runs[name], quiet=options.quiet)
    return 0 if all(as_expected(name, results, known) for name, results in runs.items()) else 1


def as_expected(name: str, results: Iterable[Result], known: set[str]) -> bool:
    """Whether exactly the known failures failed; cases of level `should` and `may` are reported, and do not count."""
    failed = {r.case.id for r in results if r.outcome in (FAILED, BROKEN) and r.case.level in ("must", "canonical")}
    passed = {result.case.id for result in results if result.outcome == PASSED}
    for case in sorted(known & passed):
        print(f"{name} passes {case}, which it is known to fail: strike it from the list")
    return not (failed - known or known & passed)


def listing(select: list[str]) -> int:
    """The command `list`."""
    cases = read_cases(select, large=True)
    if not cases:
        raise Unusable(f"no case begins with {' or '.join(select)}")
    for case in cases:
        print(f"{case.id:44} {case.level:9} {' '.join(case.spec):40} {case.title}")
    return 0


def show(identity: str) -> int:
    """The command `show`."""
    found = next((case for case in read_cases([identity], large=True) if case.id == identity), None)
    if found is None:
        raise Unusable(f"there is no case {identity}; `list` names all")
    print(json.dumps(found.document(), indent=2))
    return 0


def main() -> int:
    options = arguments().parse_args()
    try:
        match options.command:
            case "run":
                return run(options)
            case "list":
                return listing(options.case)
            case "show":
                return show(options.case)
        return coverage.main(write=options.write)
    except BrokenPipeError:  # of `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Unusable, OSError) as error:
        print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
