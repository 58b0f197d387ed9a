"""Faults between a program and an object store, at each request in turn: a proxy refuses connections, drops answers to
what was carried out, delays, answers 409, 412, 500 and 503, and cuts bodies short.

Whatever happens ends in success or in one clear error; what is stored afterwards, seen without the proxy, is the old
checkpoint or the new one, whole; and an error never says that somebody else won where nobody else was.

The default run takes one fault at each request. `--run-slow` takes all layouts, and stores that never come back.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import s3
from stores import endpoint, proxy

import ckptfmt
from ckptfmt.storage import exclusive
from ckptfmt.storage.engine import CHECK_THE_STORE, PART, engine_for
from ckptfmt.testing import equal_trees

__all__ = ["endpoint", "proxy"]  # fixtures

WORKERS = 24  # cases at a time: most of their time are pauses between tries
NEW = {"w": np.arange(40_000, dtype=np.float64), "b": [np.arange(9), "new"]}  # more than the end of a file
OLD = {"w": -np.arange(30_000, dtype=np.float64), "b": [np.arange(3), "old"]}
HUGE = {"w": np.random.default_rng(1).standard_normal((PART >> 3) + 1000), "b": "in parts"}
SAVES = {  # name: what is there before, what is saved, how
    "save": (None, NEW, {}),
    "overwrite": (OLD, NEW, {"overwrite": True}),
    "save in parts": (None, HUGE, {}),
    "overwrite in parts": (OLD, HUGE, {"overwrite": True}),
    "packed": (None, NEW, {"layout": "packed"}),
    "loose": (None, NEW, {"layout": "loose"}),
}
LOADS = {"load": {}, "load packed": {"layout": "packed"}, "load loose": {"layout": "loose"}}
USUAL = ("save", "load")  # of the default run


class Outcome(NamedTuple):
    """How a case ended: the requests made, and the code of the error, if there was one."""

    requests: list[s3.Request]
    code: str | None


class Bench:
    """Runs cases of one engine, each in a folder of its own."""

    numbers = itertools.count()

    def __init__(self, engine: str, endpoint: str, proxy: s3.Proxy, **more: Any) -> None:
        self.direct, self.proxy, self.engine = s3.options(engine, endpoint), proxy, engine
        self.through = s3.options(engine, proxy.endpoint) | more
        folder = f"probe-{next(self.numbers):05d}"
        ckptfmt.save(f"s3://bucket/{folder}/x.ckpt", 1, storage_options=self.through)  # which tries the store out

    def case(self, operation: str, fault: Callable[[int, s3.Request], str | None]) -> Outcome:
        folder = f"case-{next(self.numbers):05d}"
        url = f"s3://bucket/{folder}/x.ckpt"
        if operation in LOADS:
            ckptfmt.save(url, NEW, storage_options=self.direct, **LOADS[operation])
            return self._load(url, self.proxy.case(folder, fault))
        old, new, how = SAVES[operation]
        if old is not None:
            ckptfmt.save(url, old, storage_options=self.direct)
        seen = self.proxy.case(folder, fault)
        code = None
        try:
            ckptfmt.save(url, new, storage_options=self.through, **how)
        except ckptfmt.CkptError as error:
            code = error.code
            assert error.path == url
        made = list(seen.requests)
        found = self._found(url)
        if code is None:
            assert equal_trees(found, new), "success was told, and the checkpoint is not there"
        else:
            assert code in ("io", "permission", "not-found"), f"{code}: nobody else was there"
            assert equal_trees(found, old) or equal_trees(found, new), "what was there is harmed"
        return Outcome(made, code)

    def _load(self, url: str, seen: s3.Case) -> Outcome:
        try:
            found = ckptfmt.load(url, storage_options=self.through)
        except ckptfmt.CkptError as error:
            assert error.code in ("io", "not-found", "missing-object"), error
            return Outcome(seen.requests, error.code)
        assert equal_trees(found, NEW)
        return Outcome(seen.requests, None)

    def _found(self, url: str) -> Any:
        """What is stored, every byte verified; None if there is no checkpoint."""
        try:
            assert ckptfmt.verify(url, storage_options=self.direct).ok
            return ckptfmt.load(url, storage_options=self.direct)
        except (ckptfmt.MissingError, ckptfmt.NotACheckpointError):
            return None

    def count(self, operation: str) -> int:
        """The requests of an operation without faults."""
        return len(self.case(operation, lambda number, request: None).requests)


def once(fault: str, at: int) -> Callable[[int, s3.Request], str | None]:
    return lambda number, request: fault if number == at else None


def from_then_on(fault: str, at: int) -> Callable[[int, s3.Request], str | None]:
    return lambda number, request: fault if number >= at else None


def run(bench: Bench, cases: list[tuple[str, Callable[[int, s3.Request], str | None]]]) -> list[Outcome]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda case: bench.case(*case), cases))


def _each_request_once(bench: Bench, operations: tuple[str, ...]) -> None:
    cases = [
        (operation, fault, at)
        for operation in operations
        for fault in s3.FAULTS
        for at in range(bench.count(operation))
    ]
    conditional = {
        (operation, number)
        for operation in operations
        for number, request in enumerate(bench.case(operation, lambda *_: None).requests)
        if request.is_conditional
    }
    assert conditional or operations == ("load",)
    outcomes = run(bench, [(operation, once(fault, at)) for operation, fault, at in cases])
    assert len(outcomes) >= 45
    failed = [(name, fault, at) for (name, fault, at), outcome in zip(cases, outcomes, strict=True) if outcome.code]
    # obstore asks nothing again whose answer was cut short, and what it was uploading in parts is gone by then
    final = [case for case in failed if bench.engine == "obstore" and case[1] == "cut" and "parts" in case[0]]
    others = [case for case in failed if case[1] not in ("409", "412") and case not in final]
    assert not others, "one fault is gone with the next try"
    creates = [case for case in failed if (case[0], case[2]) in conditional]
    assert not creates, "a conflict with a write that left nothing is gone with the next try"


@pytest.mark.parametrize("engine", s3.ENGINES)
def test_a_fault_at_each_request(engine: str, endpoint: str, proxy: s3.Proxy) -> None:
    """[PUB-007] [PUB-010]"""
    _each_request_once(Bench(engine, endpoint, proxy), USUAL)


@pytest.mark.parametrize("engine", s3.ENGINES)
def test_a_part_that_was_refused_is_not_left_out(engine: str, endpoint: str, proxy: s3.Proxy) -> None:
    """An upload is not completed without its last part, though completing it is tried again. [PUB-008]"""
    bench = Bench(engine, endpoint, proxy)
    operations = ("save in parts", "overwrite in parts")
    run(bench, [(operation, once("409", at)) for operation in operations for at in range(bench.count(operation))])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", s3.ENGINES)
def test_a_fault_at_each_request_of_all_layouts(engine: str, endpoint: str, proxy: s3.Proxy) -> None:
    _each_request_once(Bench(engine, endpoint, proxy), (*SAVES, *LOADS))


@pytest.mark.parametrize("engine", s3.ENGINES)
def test_a_fault_while_a_store_is_tried_out(engine: str, endpoint: str, proxy: s3.Proxy) -> None:  # [PUB-011]
    """A store that honours conditions is never said to ignore them."""
    folders = [f"probe-{engine}-{fault.replace(' ', '-')}-{at}" for fault in s3.FAULTS for at in range(4)]
    faults = [once(fault, at) for fault in s3.FAULTS for at in range(4)]

    def honours(folder: str, fault: Callable[[int, s3.Request], str | None]) -> bool | None:
        url = f"s3://bucket/{folder}/x.ckpt"
        found, key = engine_for(url, s3.options(engine, proxy.endpoint))
        proxy.case(folder, fault)
        try:
            return exclusive.honours(found, key.rpartition("/")[0], url)
        except OSError:
            return None  # and the save fails with that

    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(honours, folders, faults))
    assert False not in outcomes
    assert outcomes.count(True) > 0.8 * len(outcomes)


IMPATIENT: dict[str, dict[str, Any]] = {  # so that it does not take minutes until a client gives up
    "fsspec": {"config_kwargs": {"retries": {"max_attempts": 0}}},
    "obstore": {"retry_config": {"max_retries": 1}},
}
LASTING = ("refuse", "drop", "409", "412", "500", "500 after", "503", "cut")


def _lasting(engine: str, endpoint: str, proxy: s3.Proxy, operations: tuple[str, ...], faults: tuple[str, ...]) -> None:
    bench = Bench(engine, endpoint, proxy, **IMPATIENT[engine])
    cases = [
        (operation, from_then_on(fault, at))
        for operation in operations
        for fault in faults
        for at in range(bench.count(operation))
    ]
    outcomes = run(bench, cases)
    # to replace a file no answer with a body is needed, and another cannot be cut
    never = [fault(0, s3.Request("", "", 0)) not in (None, "cut") for _, fault in cases]
    first = [outcome for outcome, is_never in zip(outcomes, never, strict=True) if is_never]
    assert all(outcome.code is not None for outcome in first), "a store that is never reached cannot be saved to"


@pytest.mark.parametrize("engine", s3.ENGINES)
def test_a_store_that_does_not_come_back(engine: str, endpoint: str, proxy: s3.Proxy) -> None:
    _lasting(engine, endpoint, proxy, ("overwrite", "load"), ("drop", "503"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", s3.ENGINES)
def test_a_store_that_does_not_come_back_in_all_ways(engine: str, endpoint: str, proxy: s3.Proxy) -> None:
    _lasting(engine, endpoint, proxy, (*SAVES, *LOADS), LASTING)


@pytest.mark.parametrize("engine", s3.ENGINES)
@pytest.mark.parametrize("layout", ["file", "packed"])
def test_another_save_wins_while_the_answer_is_lost(
    engine: str, layout: str, endpoint: str, proxy: s3.Proxy
) -> None:  # [PUB-010]
    """The request that decides is lost on the way there, another save is first, and the second try is refused."""
    bench = Bench(engine, endpoint, proxy)
    folder = f"overtaken-{engine}-{layout}"
    url = f"s3://bucket/{folder}/x.ckpt"
    decides = "/CLAIM" if layout == "packed" else "/x.ckpt"
    others: list[threading.Thread] = []

    def fault(number: int, request: s3.Request) -> str | None:
        if request.method == "PUT" and request.path.endswith(decides) and not others:
            save = threading.Thread(
                target=ckptfmt.save, args=(url, OLD), kwargs={"layout": layout, "storage_options": bench.direct}
            )
            others.append(save)
            save.start()
            save.join()
            return "refuse"
        return None

    proxy.case(folder, fault)
    with pytest.raises(ckptfmt.ExistsError) as caught:
        ckptfmt.save(url, NEW, layout=layout, storage_options=bench.through)
    assert caught.value.code == "exists"
    assert len(others) == 1
    assert equal_trees(ckptfmt.load(url, storage_options=bench.direct), OLD)
    assert ckptfmt.verify(url, storage_options=bench.direct).ok


def test_without_credentials_it_is_the_store_that_is_to_be_looked_at(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.save("s3://bucket/none.ckpt", {"x": 1}, storage_options={"endpoint_url": endpoint, "key": None})
    assert (caught.value.code, caught.value.path) == ("io", "s3://bucket/none.ckpt")
    assert "credentials" in caught.value.message
    assert caught.value.advice == CHECK_THE_STORE
