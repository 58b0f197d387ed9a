"""The coordinator over a shared directory, and the rounds in which what fails on one rank fails on all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckptfmt
from ckptfmt.errors import fault
from ckptfmt.parallel.coordinator import Rounds
from ckptfmt.parallel.files import FileCoordinator
from ckptfmt.parallel.presence import is_gone, presence


def together(work: Callable[[FileCoordinator], Any], folder: Path, ranks: Any, size: int, timeout: float = 20) -> Any:
    """What `work` gives or raises on each of `ranks`, each in a thread of its own."""
    outcomes: dict[int, Any] = {}

    def one(rank: int) -> None:
        try:
            with FileCoordinator(folder, rank, size, timeout=timeout) as coordinator:
                outcomes[rank] = work(coordinator)
        except BaseException as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


def rounds(number: int) -> Callable[[FileCoordinator], list[bytes]]:
    """So many rounds; each rank's reply says the round, the rank, and all messages in order."""

    def work(coordinator: FileCoordinator) -> list[bytes]:
        return [
            coordinator.exchange(
                b"%d%c" % (turn, 97 + coordinator.rank),
                lambda messages: [b"%d " % rank + b",".join(messages) for rank in range(len(messages))],
            )
            for turn in range(number)
        ]

    return work


@pytest.mark.parametrize("size", [1, 2, 5])
def test_rounds(tmp_path: Path, size: int) -> None:
    outcomes = together(rounds(3), tmp_path, range(size), size)
    for rank in range(size):
        expected = [",".join(f"{turn}{chr(97 + r)}" for r in range(size)) for turn in range(3)]
        assert outcomes[rank] == [f"{rank} {text}".encode() for text in expected]
    assert os.listdir(tmp_path) == [], "the last to close has removed the session"


def test_a_rank_that_leaves_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its last reply, and closes, before rank 0 has given the others theirs."""
    replace = os.replace

    def slowly(source: str, target: str) -> None:
        replace(source, target)
        if target.endswith(".reply"):
            time.sleep(0.1)

    monkeypatch.setattr(os, "replace", slowly)
    outcomes = together(rounds(1), tmp_path, range(4), 4, timeout=60)
    assert [type(outcomes[rank]) for rank in range(4)] == [list] * 4, outcomes
    assert os.listdir(tmp_path) == []


def test_files_of_earlier_runs_confuse_nobody(tmp_path: Path) -> None:
    (tmp_path / "session-0123").mkdir()
    (tmp_path / "session-0123" / "0.1.message").write_bytes(b"old")
    (tmp_path / "session-0123" / "lost").write_bytes(b"old")
    (tmp_path / "join-0123").write_bytes(b"")
    (tmp_path / "tmp-join-4567.89").write_bytes(b"")
    (tmp_path / "0.1.reply").write_bytes(b"old")
    for _ in range(2):
        assert together(rounds(2), tmp_path, range(3), 3)[1] == [b"1 0a,0b,0c", b"1 1a,1b,1c"]
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"session-0123", "tmp-join-4567.89", "0.1.reply"}, "a request that nobody waits for is removed"


def test_rank_0_may_be_the_first_to_close(tmp_path: Path) -> None:
    """It does not take away the last reply of a slow rank."""

    def work(coordinator: FileCoordinator) -> bytes:
        if coordinator.rank == 1:
            looks = coordinator._looks
            coordinator._looks = lambda seconds: (time.sleep(0.2) or look for look in looks(seconds))  # type: ignore
        return coordinator.exchange(b"", lambda messages: [b"done"] * 2)

    assert together(work, tmp_path, range(2), 2) == {0: b"done", 1: b"done"}
    assert os.listdir(tmp_path) == []


def test_ranks_that_do_not_come_are_named(tmp_path: Path) -> None:
    outcomes = together(rounds(1), tmp_path, (0, 2), 4, timeout=1)
    for error in outcomes.values():
        assert isinstance(error, ckptfmt.StorageError)
        assert error.code == "rank-lost"
        assert "from rank 1, 3" in error.message
    assert outcomes[0].ranks == [1, 3]


def test_a_lost_session_stays_lost(tmp_path: Path) -> None:
    with FileCoordinator(tmp_path, 0, 2, timeout=0.1) as coordinator:
        for _ in range(2):
            with pytest.raises(ckptfmt.StorageError, match="from rank 1") as caught:
                coordinator.exchange(b"", lambda messages: messages)
            assert caught.value.code == "rank-lost"


def test_a_rank_that_leaves_while_it_waits(tmp_path: Path) -> None:
    """An interrupted rank tells the others, who need not wait for it until the time is up."""

    def work(coordinator: FileCoordinator) -> Any:
        if coordinator.rank == 1:

            def interrupted(seconds: float) -> Any:
                yield
                raise KeyboardInterrupt

            coordinator.exchange(b"", lambda messages: messages)
            coordinator._looks = interrupted  # type: ignore[method-assign]
        else:
            coordinator.exchange(b"", lambda messages: messages)
            if coordinator.rank == 2:
                time.sleep(0.3)
        return coordinator.exchange(b"", lambda messages: messages)

    began = time.monotonic()
    outcomes = together(work, tmp_path, range(3), 3, timeout=240)
    assert time.monotonic() - began < 120, "it is not waited for"
    assert isinstance(outcomes[1], KeyboardInterrupt)
    for rank in (0, 2):
        assert outcomes[rank].code == "rank-lost"
        assert "rank 1 left" in outcomes[rank].message


def test_rank_0_has_left(tmp_path: Path) -> None:
    def work(coordinator: FileCoordinator) -> Any:
        coordinator.exchange(b"", lambda messages: messages)
        if coordinator.rank == 1:
            time.sleep(0.3)
            return coordinator.exchange(b"", lambda messages: messages)
        return None

    outcomes = together(work, tmp_path, range(2), 2, timeout=0.5)
    assert outcomes[0] is None
    assert outcomes[1].code == "rank-lost"


@pytest.mark.parametrize(("rank", "size"), [(-1, 2), (2, 2), (0, 0)])
def test_ranks_are_numbered_from_0(tmp_path: Path, rank: int, size: int) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        FileCoordinator(tmp_path, rank, size)
    assert caught.value.code == "bad-option"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_the_directory_must_exist(tmp_path: Path, rank: int) -> None:
    with pytest.raises(ckptfmt.MissingError) as caught:
        FileCoordinator(tmp_path / "nowhere", rank, 2)
    assert (caught.value.code, caught.value.path) == ("not-found", str(tmp_path / "nowhere"))


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = FileCoordinator(tmp_path, 1, 2, timeout=0.1)

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ckptfmt.StorageError) as caught:
        coordinator.exchange(b"", lambda messages: messages)
    assert (caught.value.code, caught.value.errno, caught.value.path) == ("disk-full", 28, str(tmp_path))


# ---- rounds in which failures travel


def test_replies_are_plain_values(tmp_path: Path) -> None:
    def work(coordinator: FileCoordinator) -> Any:
        return Rounds(coordinator).round(
            "greet",
            lambda: [coordinator.rank, b"\0", None, {1: "one"}],
            lambda found: [["to", i, found] for i in range(3)],
        )

    outcomes = together(work, tmp_path, range(3), 3)
    said = [[rank, b"\0", None, {1: "one"}] for rank in range(3)]
    assert outcomes == {rank: ["to", rank, said] for rank in range(3)}


def test_what_one_rank_raises_all_raise(tmp_path: Path) -> None:
    """The rank itself its own error, the others `rank-failed`; the next round is as good as new."""

    def work(coordinator: FileCoordinator) -> Any:
        both = Rounds(coordinator)

        def fail() -> None:
            if coordinator.rank in (1, 2):
                raise fault("disk-full", f"no room on {coordinator.rank}", path="/there", tensor="w", errno=28)

        with pytest.raises(ckptfmt.StorageError) as caught:
            both.round("fail", fail, lambda found: found)
        return caught.value, both.round("sum", lambda: coordinator.rank, lambda found: [sum(found)] * 4)

    outcomes = together(work, tmp_path, range(4), 4)
    for rank, (error, total) in outcomes.items():
        assert total == 6
        assert (error.path, error.tensor) == ("/there", "w")
        if rank in (1, 2):
            assert (error.code, error.errno, error.message) == ("disk-full", 28, f"no room on {rank}")
        else:
            message = "rank 1 failed: no room on 1 [disk-full]; so did rank 2"
            assert (error.code, error.message, error.ranks) == ("rank-failed", message, [1, 2])


def test_what_all_asked_for_fails_alike(tmp_path: Path) -> None:
    """An error of what rank 0 does for all has the same code on every rank."""

    def work(coordinator: FileCoordinator) -> Any:
        def answer(found: list[Any]) -> list[Any]:
            raise fault("ranks-differ", "they differ", tensor="w", found=1, expected=2)

        with pytest.raises(ckptfmt.InputError) as caught:
            Rounds(coordinator).round("compare", lambda: None, answer)
        return str(caught.value)

    outcomes = together(work, tmp_path, range(3), 3)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert "they differ (found 1, expected 2)" in outcomes[0]


def test_faults_of_a_program_travel(tmp_path: Path) -> None:
    def work(coordinator: FileCoordinator) -> Any:
        def fail() -> None:
            if coordinator.rank == 0:
                raise ZeroDivisionError("by zero")

        def answer(found: list[Any]) -> list[Any]:
            raise KeyError("x")

        both, raised = Rounds(coordinator), []
        for work in (fail, lambda: None):
            try:
                both.round("divide", work, answer)
            except Exception as error:
                raised.append(error)
        return raised

    outcomes = together(work, tmp_path, range(2), 2)
    assert [type(error) for error in outcomes[0]] == [ZeroDivisionError, KeyError]
    assert [error.code for error in outcomes[1]] == ["rank-failed", "rank-failed"]
    assert outcomes[1][0].message == "rank 0 failed: ZeroDivisionError: by zero"


def test_an_own_error_is_not_hidden_by_a_lost_rank(tmp_path: Path) -> None:
    def work(coordinator: FileCoordinator) -> Any:
        def fail() -> None:
            raise fault("unsupported-leaf", "a set")

        return Rounds(coordinator).round("fail", fail, lambda found: found)

    outcomes = together(work, tmp_path, (0, 1), 3, timeout=0.3)
    assert [outcomes[rank].code for rank in (0, 1)] == ["unsupported-leaf"] * 2


def test_ranks_that_do_not_make_the_same_call(tmp_path: Path) -> None:
    """All are told which; the next round is as good as new."""

    def work(coordinator: FileCoordinator) -> Any:
        both = Rounds(coordinator)
        with pytest.raises(ckptfmt.InputError) as caught:
            both.round("load" if coordinator.rank == 2 else "save", lambda: None, lambda found: found)
        return str(caught.value), both.round("sum", lambda: coordinator.rank, lambda found: [sum(found)] * 3)

    outcomes = together(work, tmp_path, range(3), 3)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    text, total = outcomes[0]
    assert "ranks 0 and 2 do not make the same call (found load on rank 2, expected save as on rank 0)" in text
    assert "[ranks-differ]" in text
    assert total == 3


def test_text_that_is_no_unicode_travels(tmp_path: Path) -> None:
    """As paths of files may be."""

    def work(coordinator: FileCoordinator) -> Any:
        return Rounds(coordinator).round("\udc80", lambda: coordinator.rank and os.stat("/\udc80"), lambda found: found)

    outcomes = together(work, tmp_path, range(2), 2)
    assert outcomes[0].code == "rank-failed"
    assert "\\udc80" in outcomes[0].message
    assert isinstance(outcomes[1], FileNotFoundError)


def test_what_cannot_be_said_fails_in_all(tmp_path: Path) -> None:
    def work(coordinator: FileCoordinator) -> Any:
        return Rounds(coordinator).round("greet", lambda: object() if coordinator.rank else 1, lambda found: found)

    outcomes = together(work, tmp_path, range(2), 2)
    assert outcomes[0].code == "rank-failed"
    assert isinstance(outcomes[1], TypeError)


def test_a_trouble_of_rank_0_is_not_that_of_the_others(tmp_path: Path) -> None:
    def work(coordinator: FileCoordinator) -> Any:
        def answer(found: list[Any]) -> list[Any]:
            raise fault("io", "cannot write")

        return Rounds(coordinator).round("commit", lambda: None, answer)

    outcomes = together(work, tmp_path, range(2), 2)
    assert outcomes[0].code == "io"
    assert (outcomes[1].code, outcomes[1].message) == ("rank-failed", "rank 0 failed: cannot write [io]")


# ---- ranks that are no more


def test_a_rank_that_closes_is_missed_at_once(tmp_path: Path) -> None:
    """It need not be waited for until the time is up, and what it has said before counts."""

    def work(coordinator: FileCoordinator) -> Any:
        said = coordinator.exchange(b"", lambda messages: [b"said"] * 3)
        if coordinator.rank == 1:
            if "Zero" in why:
                raise ZeroDivisionError("by zero")
            return said
        return coordinator.exchange(b"", lambda messages: messages)

    for why in ("it has closed its coordinator", "it left: ZeroDivisionError('by zero')"):
        began = time.monotonic()
        outcomes = together(work, tmp_path, range(3), 3, timeout=240)
        assert time.monotonic() - began < 120, "it is not waited for"
        for rank in (0, 2):
            assert (outcomes[rank].code, outcomes[rank].ranks) == ("rank-lost", [1])
            assert outcomes[rank].message == f"rank 1 is gone: {why}"
        assert os.listdir(tmp_path) == [], "all have closed"


def test_rounds_of_another_thread(tmp_path: Path) -> None:
    def work(coordinator: FileCoordinator) -> Any:
        other = coordinator.split()
        said = [each.exchange(b"%d" % n, lambda messages: messages) for n, each in enumerate((coordinator, other))]
        return said, other.split().exchange(b"", lambda messages: messages)

    assert together(work, tmp_path, range(2), 2) == {rank: ([b"0", b"1"], b"") for rank in range(2)}
    assert os.listdir(tmp_path) == []


def test_presence_of_processes() -> None:
    here = presence()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    there = presence(child.pid)
    assert len({"", here, there}) == 3
    assert not is_gone(here)
    assert not is_gone(there)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(there), "nobody has asked yet how it ended"
    child.communicate()
    assert is_gone(there)
    assert presence(child.pid) == ""
    machine, namespace = here.rsplit(" ", 2)[0].rsplit(" ", 1)
    assert not is_gone(there.replace(machine, "elsewhere"))
    assert not is_gone(there.replace(namespace, "pid:[1]"))
    assert not is_gone("")
    earlier = here.rpartition(" ")[0] + " 1"
    assert is_gone(earlier), "another process with its number"
