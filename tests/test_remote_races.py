"""Many save to one name of an S3 server at once: exactly one wins, every other is told, and the winner's tree is there,
whole. Writers are threads of this process and processes of their own.

The long run, 16 writers and 200 rounds of each kind, is `pytest tests/test_remote_races.py --run-slow`.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import s3
from damage import barrier, child, queue
from stores import endpoint

import ckptfmt

__all__ = ["endpoint"]  # a fixture

WRITERS = 16


def write(url: str, number: int, layout: str, options: dict[str, Any]) -> str:
    """Save a tree of one's own; gives "won" or the code of the error."""
    tree = {"who": number, "w": np.full(2000, number)}
    try:
        ckptfmt.save(url, tree, layout=layout, storage_options=options)
        return "won"
    except ckptfmt.CkptError as error:
        return error.code


def check(url: str, outcomes: dict[int, str], options: dict[str, Any]) -> None:
    winners = [number for number, outcome in outcomes.items() if outcome == "won"]
    assert len(winners) == 1, outcomes
    assert sorted(outcomes.values()) == ["exists"] * (len(outcomes) - 1) + ["won"]
    tree = ckptfmt.load(url, storage_options=options)
    assert tree["who"] == winners[0]
    assert (tree["w"] == winners[0]).all()
    assert ckptfmt.verify(url, storage_options=options).ok


def race_of_threads(engine: str, layout: str, endpoint: str, rounds: int) -> None:
    options = s3.options(engine, endpoint)
    start = threading.Barrier(WRITERS)
    for number in range(rounds):
        url = f"s3://bucket/threads-{rounds}-{engine}-{layout}-{number}/x.ckpt"
        outcomes: dict[int, str] = {}

        def race(writer: int) -> None:
            start.wait()
            outcomes[writer] = write(url, writer, layout, options)

        threads = [threading.Thread(target=race, args=(writer,)) for writer in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(url, outcomes, options)
        left = s3.keys(endpoint, url.split("/")[3])
        assert not [key for key in left if "CLAIM" in key or "tmp" in key or "probe" in key], left


def race_rounds(writer: int, urls: list[str], layout: str, options: dict[str, Any], start: Any, results: Any) -> None:
    """One process's part in all rounds."""
    for number, url in enumerate(urls):
        start.wait(120)
        results.put((number, writer, write(url, writer, layout, options)))


def race_of_processes(layout: str, endpoint: str, rounds: int, writers: int) -> None:
    """Half of the processes write through one engine, half through the other."""
    urls = [f"s3://bucket/processes-{rounds}-{layout}-{number}/x.ckpt" for number in range(rounds)]
    start, results = barrier(writers), queue()
    processes = [
        child(race_rounds, writer, urls, layout, s3.options(s3.ENGINES[writer % 2], endpoint), start, results)
        for writer in range(writers)
    ]
    outcomes: list[dict[int, str]] = [{} for _ in urls]
    for _ in range(writers * rounds):
        number, writer, outcome = results.get()
        outcomes[number][writer] = outcome
    for process in processes:
        process.join(60)
    for url, found in zip(urls, outcomes, strict=True):
        check(url, found, s3.options(s3.ENGINES[0], endpoint))


@pytest.mark.parametrize("layout", ["file", "packed"])
@pytest.mark.parametrize("engine", s3.ENGINES)
def test_one_of_many_threads_wins(engine: str, layout: str, endpoint: str) -> None:  # [PUB-008] [PUB-012]
    race_of_threads(engine, layout, endpoint, 2)


def test_one_of_many_processes_wins(endpoint: str) -> None:
    race_of_processes("file", endpoint, 3, 4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("layout", ["file", "packed"])
@pytest.mark.parametrize("engine", s3.ENGINES)
def test_two_hundred_rounds_of_threads(engine: str, layout: str, endpoint: str) -> None:
    race_of_threads(engine, layout, endpoint, 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("layout", ["file", "packed"])
def test_two_hundred_rounds_of_processes(layout: str, endpoint: str) -> None:
    race_of_processes(layout, endpoint, 200, WRITERS)
