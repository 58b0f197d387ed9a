"""The types of the public face, as strict type checkers see them in programs of users (tests/typing): right programs
pass, and what is misspelt, misplaced or of the wrong type is an error at its line that names it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from peers import peer

import ckptfmt

pytestmark = pytest.mark.timeout(1800)  # a checker takes seconds, and minutes on a busy machine
ROOT = Path(ckptfmt.__file__).parents[1]
PROGRAMS = Path(__file__).parent / "typing"
WRONG = re.compile(r"  # wrong: (\w+)$")


class Told(NamedTuple):
    """An error that a type checker reports."""

    file: str
    line: int
    message: str


def run(module: str, *arguments: str) -> str:
    """What a type checker prints, for which the packages are installed, and typed by their py.typed alone."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters"), *sys.path])}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROGRAMS, env=env)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def by_mypy(cache: Path) -> list[Told]:
    lines = run("mypy", "--config-file", "mypy.ini", "--cache-dir", str(cache), "--output", "json", ".").splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [Told(one["file"], one["line"], one["message"]) for one in found if one["severity"] == "error"]


def by_pyright(cache: Path) -> list[Told]:
    found = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable))["generalDiagnostics"]
    return [
        Told(Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["message"])
        for one in found
        if one["severity"] == "error"
    ]


@pytest.fixture(scope="module", params=[by_mypy, by_pyright], ids=["mypy", "pyright"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    """All that one checker reports of all programs."""
    errors: list[Told] = request.param(tmp_path_factory.mktemp("cache"))
    return errors


def expected() -> Iterator[tuple[str, int, str]]:
    for program in sorted(PROGRAMS.glob("wrong_*.py")):
        for number, line in enumerate(program.read_text().splitlines(), 1):
            if found := WRONG.search(line):
                yield program.name, number, found[1]


def test_right_programs_pass(told: list[Told]) -> None:
    assert sorted(PROGRAMS.glob("right_*.py"))
    lacking = [name for name in ("jax", "torch") if importlib.util.find_spec(name) is None]
    passes = {"right_adapters.py"} if lacking else set()  # whose types are not known then
    assert [one for one in told if one.file.startswith("right_") and one.file not in passes] == []


def test_each_wrong_line_is_an_error_that_names_what_is_wrong(told: list[Told]) -> None:
    wanted = list(expected())
    assert len(wanted) > 50
    lines = {(file, line): word for file, line, word in wanted}
    messages: dict[tuple[str, int], str] = {}
    for one in told:
        if one.file.startswith("wrong_"):
            messages[one.file, one.line] = f"{messages.get((one.file, one.line), '')} {one.message}"
    assert messages.keys() == lines.keys(), "these lines, and no others"
    unnamed = {place: message for place, message in messages.items() if lines[place] not in message}
    assert not unnamed


# ---- whether all of the public face has a type

PUBLIC = ("ckptfmt", "ckptfmt.manager", "ckptfmt.recompute", "ckptfmt.testing", "ckptfmt_jax", "ckptfmt_numpy")
# torch takes a minute


def names(module: str) -> set[str]:
    """The public names, each as that of the place where it is defined; packages among them are asked for themselves."""
    home = peer(module)
    values = ((name, getattr(home, name)) for name in home.__all__ if f"{module}.{name}" not in PUBLIC)
    return {f"{getattr(value, '__module__', module)}.{getattr(value, '__qualname__', name)}" for name, value in values}


@pytest.mark.parametrize("package", ["ckptfmt", "ckptfmt_jax", "ckptfmt_numpy"])
def test_every_public_name_has_a_known_type(package: str) -> None:
    """Of classes all that does not begin with an underscore, too; nothing is left to be inferred."""
    report: dict[str, Any] = json.loads(run("pyright", "--verifytypes", package, "--ignoreexternal", "--outputjson"))
    public = set().union(*(names(module) for module in PUBLIC if module.partition(".")[0] == package))
    of_public = re.compile("|".join(rf"{re.escape(name)}(\.\w+)*" for name in public)).fullmatch
    symbols = [one for one in report["typeCompleteness"]["symbols"] if of_public(one["name"])]
    assert len(symbols) >= len(public) / 2
    unknown = {
        one["name"]: [fault["message"] for fault in one["diagnostics"]]
        for one in symbols
        if not one["isTypeKnown"] or one["isTypeAmbiguous"]
    }
    assert not unknown
