"""Plans say beforehand what a run takes, in Python and on the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adjoints import Counter
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.recompute import Costs, gradient, measure, plan
from ckptfmt.recompute.optimum import fewest_steps
from ckptfmt.recompute.schedules import SCHEDULES, Slots, table_of


def printed(line: str, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "120"}).invoke(cli, shlex.split(line))
    assert result.exit_code == code, result.output
    return result.output


@settings(max_examples=20)
@given(steps=st.integers(1, 30), memory=st.integers(0, 4), disk=st.integers(0, 9))
def test_what_a_plan_says_is_what_a_run_takes(tmp_path_factory: Any, steps: int, memory: int, disk: int) -> None:
    if not memory and not disk:
        return
    found = plan(steps, memory=memory, disk=disk)
    assert sorted(one.schedule for one in found.schedules) == sorted(SCHEDULES)
    times = [one.time for one in found.schedules if not one.why_not]
    assert times == sorted(times)
    folder = tmp_path_factory.getbasetemp() / "plan"
    for one in found.schedules:
        if one.why_not:
            continue
        counter = Counter()
        budget = {"memory": memory, "disk": disk}
        if one.schedule in ("revolve", "mixed") and memory:
            budget["disk"] = 0
        report = gradient(
            *(counter.step, counter.adjoint, 0, steps, lambda final: final),
            schedule=one.schedule,
            folder=folder if budget["disk"] else None,
            **budget,
        ).report
        assert report.forward_steps == one.forward_steps
        assert (report.memory_snapshots, report.disk_snapshots) == (one.memory_snapshots, one.disk_snapshots)
        assert one.memory_snapshots <= memory
        assert one.disk_snapshots <= disk
        assert one.factor == one.forward_steps / steps


def test_two_tiers_are_counted_as_the_library_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps, of which one for each adjoint step is a part of that; the last of these gives the final state."""
    import checkpoint_schedules as library

    made = {
        "multistage": lambda n, m, d: library.MultistageCheckpointSchedule(n, m, d),
        "h-revolve": lambda n, m, d: library.HRevolve(n, m, d, 1, 1, 2, 2),
        "disk-revolve": lambda n, m, d: library.DiskRevolve(n, m, 1, 1, 2, 2),
    }
    for name, make in made.items():
        for steps in (2, 3, 10, 50, 101):
            for memory, disk in ((1, 1), (2, 5), (5, 2), (9, 30)):
                limit = 10**6 if name == "disk-revolve" else disk
                actions = list(make(steps, min(memory, steps - 1), min(disk, steps - 1)))
                theirs = sum(len(one) for one in actions if isinstance(one, library.Forward))
                table = table_of(name, steps, Slots(memory, limit), Costs())
                assert table.forward_steps == theirs - steps + 1


def test_a_plan_of_a_long_run() -> None:
    found = plan(10_000, memory=20, disk=200, costs=Costs(write=5, read=3))
    assert found.best is not None
    assert found.best.schedule in ("two-level", "multistage", "revolve")
    (multistage,) = (one for one in found.schedules if one.schedule == "multistage")
    assert multistage.forward_steps == fewest_steps(10_000, 220)
    assert {one.schedule for one in found.schedules if "long to compute" in one.why_not} == {
        *("h-revolve", "disk-revolve", "mixed")
    }
    assert found.curve[0] == (1, 10_000 * 9_999 // 2 + 1)
    assert found.curve[-1] == (220, multistage.forward_steps)
    assert list(found.curve) == sorted(found.curve)


def test_one_schedule_alone() -> None:
    (one,) = plan(60, memory=3, disk=5, schedule="h-revolve").schedules
    assert (one.schedule, one.why_not) == ("h-revolve", "")


def test_a_schedule_of_one_step() -> None:
    """Of which the library has none for every schedule."""
    for one in plan(1, memory=1, disk=1).schedules:
        assert (one.why_not, one.forward_steps) == ("", 1)


def test_measured_costs(tmp_path: Path) -> None:
    costs = measure(lambda s, n: s + 1, lambda s, n, a: a, np.zeros(1000), np.ones(1000), folder=tmp_path)
    assert costs.forward > 0
    assert costs.write > 0
    assert costs.read > 0
    assert list(tmp_path.iterdir()) == []
    assert measure(lambda s, n: s, lambda s, n, a: a, 0, 0).write == 0


# ---- the command line


def test_the_table() -> None:
    text = printed("recompute plan --steps 400 --memory 9 --disk 100 --write-cost 5 --read-cost 3")
    head, first = text.splitlines()[:2]
    assert head.split() == ["schedule", "steps", "factor", "memory", "disk", "written", "read", "time"]
    best = plan(400, memory=9, disk=100, costs=Costs(write=5, read=3)).best
    assert best is not None
    assert first.split()[:2] == [best.schedule, f"{best.forward_steps:,}"]
    assert "h-revolve: its table takes long to compute" in text
    assert "9.8 MiB" in printed("recompute plan --steps 50 --memory 10MiB --snapshot-bytes 1024000")


def test_json() -> None:
    found = json.loads(printed("recompute plan --steps 100 --memory 5 --disk unlimited --json"))
    assert set(found) == {"steps", "memory", "disk", "costs", "snapshot_bytes", "schedules", "curve"}
    assert found["schedules"][0]["time"] <= found["schedules"][1]["time"]
    assert found["costs"] == {"forward": 1.0, "adjoint": 1.0, "write": 2.0, "read": 2.0}


def test_a_plot(tmp_path: Path) -> None:
    printed(f"recompute plan --steps 100 --memory 5 --disk 9 --plot {tmp_path / 'plan.png'}")
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"


PROGRAM = """
import numpy as np

def parts():
    return lambda s, n: np.sin(s), lambda s, n, a: np.cos(s) * a, np.zeros(1000), np.ones(1000)
"""


def test_a_program_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program_to_measure.py").write_text(PROGRAM)
    line = "recompute plan --steps 100 --memory 40KiB --disk 9 --measure program_to_measure:parts --json"
    found = json.loads(printed(line))
    assert found["snapshot_bytes"] == 8000
    assert found["memory"] == 5
    assert found["costs"]["write"] > 0
    assert "--measure: there is no program_to_measure:part" in printed(line.replace("parts --json", "part"), 2)


def test_errors_are_spelled_for_the_command_line() -> None:
    assert "--memory in bytes" in printed("recompute plan --steps 5 --memory 5MiB", 2)
    assert "no snapshots can be held" in printed("recompute plan --steps 5", 2)
    assert "did you mean 'mixed'" in printed("recompute plan --steps 5 --memory 2 --schedule mixd", 2)


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "checkpoint_schedules", None)
    for call in (
        lambda: plan(5, memory=2),
        lambda: gradient(lambda s, n: s, lambda s, n, a: a, 0, 5, 0, memory=2),
    ):
        with pytest.raises(ckptfmt.UnsupportedError, match=r"pip install 'ckptfmt\[recompute\]'") as caught:
            call()
        assert caught.value.code == "missing-package"
