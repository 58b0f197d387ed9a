"""A gradient that ends too early, whatever ends it, goes on to the same bits; damaged snapshots are told of."""

from __future__ import annotations

import errno
import itertools
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adjoints import Chain, bits
from damage import use_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recompute import Scratch

import ckptfmt
from ckptfmt.recompute import Costs, Gradient, SnapshotWarning, gradient
from ckptfmt.recompute.snapshots import DiskTier
from ckptfmt.storage import leases
from stress import recompute as kills

STEPS = 13
WAYS: tuple[dict[str, Any], ...] = (
    {"memory": 2, "disk": 3},
    {"disk": 2},
    {"memory": 2},
    {"schedule": "h-revolve", "memory": 1, "disk": 4},
    {"schedule": "two-level", "memory": 1, "disk": 9, "period": 3},
    {"schedule": "disk", "disk": "unlimited"},
    {"schedule": "mixed", "disk": 4},
)
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))


class Stop(Exception):
    """Ends a run."""


class Stopping(Chain):
    """Stops once before a call, counted over steps and adjoint steps, and before so many adjoint steps."""

    def __init__(self, *stops: int, back: int | None = None) -> None:
        super().__init__()
        self.stops, self.back = stops, back

    def _stop(self) -> None:
        if self.calls + self.adjoint_calls in self.stops:
            self.calls += 1
            raise Stop

    def step(self, state: dict[str, Any], number: int) -> dict[str, Any]:
        self._stop()
        return super().step(state, number)

    def adjoint(self, state: dict[str, Any], number: int, after: Any) -> Any:
        self._stop()
        if self.adjoint_calls == self.back:
            self.back = None
            raise Stop
        return super().adjoint(state, number, after)

    def run(self, folder: Path, way: dict[str, Any], **options: Any) -> Gradient:
        more = {"folder": folder, "resume": True, "journal_every": 0, "durable": False, **way, **options}
        return gradient(self.step, self.adjoint, self.initial(), STEPS, self.seed, **more)


WANTED, FINAL = Chain().full(STEPS)


@each_way
def test_a_run_that_stops_at_any_call_goes_on(tmp_path: Path, way: dict[str, Any]) -> None:
    calls = Stopping()
    calls.run(tmp_path / "x", way)
    total = calls.calls + calls.adjoint_calls
    for stop in range(0, total, 8):
        chain = Stopping(stop)
        with pytest.raises(Stop):
            chain.run(tmp_path / "x", way)
        assert (tmp_path / "x" / "run.ckpt").exists()
        found = chain.run(tmp_path / "x", way)
        assert bits(found.adjoint) == bits(WANTED)
        assert bits({"x": found.state["x"]}) == bits({"x": FINAL["x"]})
        assert found.report.adjoint_steps <= STEPS
        assert os.listdir(tmp_path) == []


@settings(max_examples=12)
@given(
    way=st.sampled_from(WAYS), stops=st.lists(st.integers(0, 80), min_size=1, max_size=5), every=st.sampled_from([0, 9])
)
def test_again_and_again(scratch: Scratch, way: dict[str, Any], stops: list[int], every: float) -> None:
    chain = Stopping(*stops)
    with scratch() as place:
        for _ in range(len(stops) + 1):
            try:
                found = chain.run(Path(place) / "x", way, journal_every=every)
                break
            except Stop:
                pass
        assert os.listdir(place) == []
    assert bits(found.adjoint) == bits(WANTED)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The long run is `python -m stress recompute`."""
    result = kills.run(tmp_path, seed=7, count=4)
    assert result.bad == [], result.counts


def test_how_far_it_had_come(tmp_path: Path) -> None:
    """What was done is not done again: snapshots on the disk are used, and the adjoint goes on where it was."""
    way = {"memory": 2, "disk": 4}
    chain = Stopping(STEPS - 2)
    with pytest.raises(Stop):
        chain.run(tmp_path, way)
    found = chain.run(tmp_path, way)
    assert found.report.resumed is not None
    assert found.report.resumed[0] == "forward"
    assert 0 < found.report.resumed[1] < STEPS
    assert found.report.forward_steps < found.report.planned_steps
    done = 5
    chain = Stopping(back=done)
    with pytest.raises(Stop):
        chain.run(tmp_path, way)
    found = chain.run(tmp_path, way)
    assert found.report.resumed == ("back", STEPS - done)
    assert found.report.adjoint_steps == STEPS - done


# ---- damage


def flip(path: Path) -> None:
    """A bit of each byte, but for the first and last ones, in which its kind and its commit record stand."""
    data = bytearray(path.read_bytes())
    data[100:-200] = bytes(byte ^ 1 for byte in data[100:-200])
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, 100)


each_damage = pytest.mark.parametrize("damage", [flip, cut, os.unlink], ids=["flipped", "cut", "gone"])


@pytest.mark.parametrize("way", [WAYS[0], WAYS[4]], ids=lambda way: "-".join(map(str, way.values())))
@each_damage
def test_a_damaged_snapshot_is_computed_again(tmp_path: Path, way: dict[str, Any], damage: Any) -> None:
    """Of any number, one at a time; told, where there is one."""
    for number in range(0, STEPS, 2):
        damaged = False

        class Damaging(Stopping):
            def adjoint(self, state: Any, at: int, after: Any) -> Any:
                nonlocal damaged
                path = next(iter(tmp_path.rglob(f"snapshot-{number:08}.ckpt")), None)
                if path is not None and at > number and not damaged:
                    damage(path)
                    damaged = True
                return super().adjoint(state, at, after)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = Damaging().run(tmp_path / "x", way, resume=number % 4 == 0)
        assert bits(found.adjoint) == bits(WANTED)
        told = [str(one.message) for one in caught if one.category is SnapshotWarning]
        assert list(found.report.damaged) == [number] * len(told)  # not where it had been read ahead
        assert len(told) <= damaged
    assert os.listdir(tmp_path) in ([], ["x"])


@each_damage
@pytest.mark.parametrize("name", ["turn.ckpt", "journal.ckpt"])
def test_a_damaged_journal_is_done_again(tmp_path: Path, name: str, damage: Any) -> None:
    chain = Stopping(back=6)
    with pytest.raises(Stop):
        chain.run(tmp_path, {"memory": 1, "disk": 3})
    damage(tmp_path / name)
    told = () if damage is os.unlink else (SnapshotWarning,)
    with pytest.warns(told, match=name) if told else warnings.catch_warnings():
        found = chain.run(tmp_path, {"memory": 1, "disk": 3})
    assert bits(found.adjoint) == bits(WANTED)


def test_the_initial_state_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snapshot is gone, and none was read ahead. A state that was changed meanwhile is not taken for it."""
    monkeypatch.setattr(DiskTier, "read_ahead", lambda *_: None)
    chain = Chain()
    initial = chain.initial()

    def losing(state: Any, number: int, after: Any) -> Any:
        for path in tmp_path.rglob("snapshot-*.ckpt"):
            path.unlink(missing_ok=True)
        return chain.adjoint(state, number, after)

    options: dict[str, Any] = {"disk": 3, "folder": tmp_path}
    with pytest.warns(SnapshotWarning, match="computed again"):
        found = gradient(chain.step, losing, initial, STEPS, chain.seed, **options)
    assert bits(found.adjoint) == bits(WANTED)
    assert found.report.again > 0

    def seed(final: Any) -> Any:
        initial["x"][:] = 5
        return chain.seed(final)

    with (
        pytest.warns(SnapshotWarning, match="computed again"),
        pytest.raises(ckptfmt.CorruptError, match="changed in place") as caught,
    ):
        gradient(chain.step, losing, initial, STEPS, seed, **options)
    assert caught.value.code == "missing-object"


def test_a_snapshot_of_another_run_is_none(tmp_path: Path) -> None:
    """As a copy that was put back may be."""
    chain = Stopping(STEPS - 2)
    way = {"disk": 3}
    with pytest.raises(Stop):
        chain.run(tmp_path / "x", way)
    with pytest.raises(Stop):
        Stopping(STEPS - 2).run(tmp_path / "other", way)
    for path in (tmp_path / "other").glob("snapshot-*.ckpt"):
        os.replace(path, tmp_path / "x" / path.name)
    with pytest.warns(SnapshotWarning, match="no snapshot of this run"):
        found = chain.run(tmp_path / "x", way)
    assert bits(found.adjoint) == bits(WANTED)


# ---- the disk


def test_a_full_disk(tmp_path: Path) -> None:
    """The error says so; a run that can be resumed goes on once there is room, another one leaves nothing."""
    chain, way = Stopping(), {"memory": 1, "disk": 4}
    for resume in (True, False):
        written = itertools.count()

        def act(name: str, *_: Any) -> None:
            if name == "write" and next(written) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")

        patch = use_disk(act)
        try:
            with pytest.raises(ckptfmt.StorageError) as caught:
                chain.run(tmp_path / "x", way, resume=resume)
        finally:
            patch.undo()
        assert caught.value.code == "disk-full"
        assert resume == any((tmp_path / "x").glob("snapshot-*.ckpt"))
        found = chain.run(tmp_path / "x", way, resume=resume)
        assert bits(found.adjoint) == bits(WANTED)
        assert list(tmp_path.glob("x/*")) == []


def test_what_a_crash_leaves_is_garbage(tmp_path: Path) -> None:
    """Of a run that nobody resumes; and while it runs, nothing is taken from it."""
    chain = Chain()

    def adjoint(state: Any, number: int, after: Any) -> Any:
        assert ckptfmt.gc(tmp_path, delete=True, grace=0).found == ()
        return chain.adjoint(state, number, after)

    gradient(chain.step, adjoint, chain.initial(), STEPS, chain.seed, disk=3, folder=tmp_path)
    assert kills.left_by_a_kill(tmp_path / "once", kills.WAYS[0], kills.random.Random(1)) == []


# ---- whose folder it is


def test_a_folder_in_use(tmp_path: Path) -> None:
    chain = Stopping()
    with leases.claim(tmp_path.as_posix()) as is_ours:
        assert is_ours
        with pytest.raises(ckptfmt.ExistsError, match="another process is at work") as caught:
            chain.run(tmp_path, {"disk": 3})
    assert caught.value.code == "exists"
    assert chain.calls == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"memory": 3}, "memory budget"),
        ({"disk": 4}, "disk budget"),
        ({"schedule": "h-revolve"}, "schedule asked for"),
        ({"period": 2}, "period"),
        ({"costs": Costs()}, "costs asked for"),
    ],
)
def test_another_run_s_folder(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    way = {"memory": 2, "disk": 3}
    chain = Stopping(back=3)
    with pytest.raises(Stop):
        chain.run(tmp_path, way)
    there = sorted(os.listdir(tmp_path))
    with pytest.raises(ckptfmt.InputError, match=f"another run, with another {named}") as caught:
        chain.run(tmp_path, {**way, **change})
    assert caught.value.code == "bad-option"
    assert sorted(os.listdir(tmp_path)) == there
    chain.run(tmp_path, way)


def test_another_initial_state_or_number_of_steps(tmp_path: Path) -> None:
    chain = Stopping(back=3)
    options: dict[str, Any] = {"disk": 3, "folder": tmp_path, "resume": True}
    with pytest.raises(Stop):
        chain.run(tmp_path, {"disk": 3})
    state = chain.initial()
    with pytest.raises(ckptfmt.InputError, match="another steps"):
        gradient(chain.step, chain.adjoint, state, STEPS + 1, chain.seed, **options)
    state["rng"].random()
    with pytest.raises(ckptfmt.InputError, match="another initial state"):
        gradient(chain.step, chain.adjoint, state, STEPS, chain.seed, **options)


def test_a_folder_with_other_checkpoints(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "model.ckpt", {"w": np.ones(3)})
    with pytest.raises(ckptfmt.ExistsError, match="of no run"):
        Stopping().run(tmp_path, {"disk": 3})
    (tmp_path / "model.ckpt").rename(tmp_path / "note.txt")
    Stopping().run(tmp_path, {"disk": 3})
    assert os.listdir(tmp_path) == ["note.txt"]
