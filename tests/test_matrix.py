"""`make test-matrix` runs what it says, or says why not."""

from __future__ import annotations

import sys

import matrix
import pytest


def test_it_begins_with_the_oldest_python_that_is_admitted() -> None:
    assert matrix.PROJECT["requires-python"] == f">={matrix.PYTHONS[0]}"
    minors = [int(version.removeprefix("3.")) for version in matrix.PYTHONS]
    assert minors == list(range(minors[0], minors[0] + len(minors)))
    assert matrix.RUNS[0] == (matrix.PYTHONS[0], "oldest")


def test_it_finds_the_python_of_a_version() -> None:
    assert matrix.interpreter("{}.{}".format(*sys.version_info)) is not None
    assert matrix.interpreter("3.2") is None


def test_a_python_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(matrix, "PYTHONS", ["3.2"])
    monkeypatch.setattr(matrix, "RUNS", [("3.2", "newest")])
    assert matrix.main([]) == 0
    assert capsys.readouterr().out == "Python 3.2, newest packages: there is no python3.2 on this machine\n"


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        ("", "3.11 oldest, 3.11 newest, 3.12 newest, 3.13 newest"),
        ("--only 3.12 --only 3.13", "3.12 newest, 3.13 newest"),
        ("--packages oldest -n 2", "3.11 oldest"),
        ("--only 3.11 --packages newest", "3.11 newest"),
    ],
)
def test_some_runs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, runs: str
) -> None:
    monkeypatch.setattr(matrix, "interpreter", lambda _: None)
    matrix.main(arguments.split())
    said = [line.split()[1:3] for line in capsys.readouterr().out.replace(",", "").splitlines()]
    assert ", ".join(map(" ".join, said)) == runs


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ("===== 2 failed, 10 passed, 3 skipped in 4.05s (0:00:04) =====", "2 failed, 10 passed, 3 skipped"),
        ("1 passed, 2 errors in 0.10s", "1 passed, 2 errors"),
        ("error: No solution found", ""),
    ],
)
def test_the_counts_are_those_of_pytest(last: str, found: str) -> None:
    assert matrix.counts(last) == found
