"""`gc` on object stores: what saves that died have left goes, what lives and all else stays. [PUB-016] [PUB-017]"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import pytest
import s3
from click.testing import CliRunner
from damage import LAYOUTS
from stores import LARGE as UPLOADED
from stores import TREE, Store, endpoint, load, s3_store, save, store

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.frameworks.sources import Lazy
from ckptfmt.maintenance import garbage_on_store
from ckptfmt.maintenance.garbage_on_store import gc_on_store
from ckptfmt.storage.engine import Engine, engine_for
from ckptfmt.storage.remote_directory import RemoteDirectory, new_claim
from ckptfmt.testing import assert_same_tree

__all__ = ["endpoint", "s3_store", "store"]  # fixtures

HEX = "0123456789ab"
LARGE = UPLOADED[:1000]  # less than a part, as the server fails where uploads in parts end under it
DIRECTORIES = ("packed", "loose")


def gc(store: Store, **more: Any) -> ckptfmt.GarbageReport:
    """Collect in the folder."""
    return ckptfmt.gc(store.url.rpartition("/")[0], storage_options=store.options, **more)


def names(store: Store, found: tuple[ckptfmt.Garbage, ...]) -> list[str]:
    folder = store.url.rpartition("/")[0]
    return [garbage.path.removeprefix(f"{folder}/") for garbage in found]


def engine_of(store: Store) -> tuple[Engine, str]:
    """The engine, and the key of the folder."""
    engine, key = engine_for(store.url, store.options)
    return engine, key.rpartition("/")[0]


def put(store: Store, name: str, data: bytes = b"x") -> None:
    engine, folder = engine_of(store)
    engine.put(f"{folder}/{name}", data, exclusive=False)


def contents(store: Store) -> dict[str, int]:
    engine, folder = engine_of(store)
    return {entry.key.removeprefix(f"{folder}/"): entry.size for entry in engine.entries(folder)}


def killed(store: Store, layout: str, **options: Any) -> None:
    """What a save leaves that dies before its `COMMIT`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteDirectory, "publish", killed_here)
        patch.setattr(RemoteDirectory, "abort", RemoteDirectory._end_senders)
        with pytest.raises(KeyboardInterrupt):
            save(store, layout=layout, **options)


def killed_here(attempt: RemoteDirectory) -> None:
    attempt.flush()
    raise KeyboardInterrupt


OURS = [
    f".a.ckpt.{HEX}.ckptfmt-tmp",
    ".0123456789abcdef.ckptfmt-probe",
    f".step-0000000001.ckpt.{HEX}.ckptfmt-lease",
    ".step-0000000002.ckpt.ckptfmt-deleted",
]
DEAD = ["loose.dead", "packed.dead", "paged.dead"]


@pytest.fixture
def run(store: Store) -> Store:
    """Checkpoints of all layouts, leftovers, and others' objects with names like theirs."""
    for layout in LAYOUTS:
        save(store.at(f"{layout}.ckpt"), layout=layout)
    for layout in DIRECTORIES:
        killed(store.at(f"{layout}.dead"), layout)
    killed(store.at("paged.dead"), "packed", paged=True)
    for name in OURS:
        put(store, name)
    for name in (
        ".x.ckptfmt-tmp",
        f"x.{HEX}.ckptfmt-tmp",
        f".{HEX}.ckptfmt-probe",
        "CLAIMED",
        "packs/00000.zip",  # without a claim, as of a copy that is being made
        "chance/CLAIM",
        f"packed.ckpt/.x.{HEX}.ckptfmt-tmp",
        f"loose.ckpt/tensors/.x.{HEX}.ckptfmt-tmp",
        ".step-0000000003.ckpt.ckptfmt-deleted",
        "step-0000000003.ckpt",
        f"below/.x.{HEX}.ckptfmt-tmp",
    ):
        put(store, name)
    put(store, "packed.ckpt/CLAIM", new_claim())  # beside COMMIT it means nothing
    put(store, "diary/CLAIM", new_claim())
    put(store, "diary/today.txt")
    return store


def test_nothing_is_removed_unless_asked_for(run: Store) -> None:
    before = contents(run)
    report = gc(run, grace=0)
    young = [name for name in OURS if name.endswith(("probe", "lease"))]
    assert sorted(names(run, report.found)) == sorted({*OURS, *DEAD} - {*young})
    assert {*names(run, report.kept)} > {*young}
    assert not any(garbage.removed for garbage in report.found)
    assert contents(run) == before


def test_leftovers_are_removed_and_nothing_else(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_on_store, "clock_of", lambda *_: time.time() + 700)
    before = contents(run)
    report = gc(run, delete=True, grace=0)
    assert sorted(names(run, report.found)) == sorted([*OURS, *DEAD])
    assert all(garbage.removed for garbage in report.found)
    assert {(name, garbage.why) for garbage, name in zip(report.kept, names(run, report.kept), strict=True)} == {
        (".step-0000000003.ckpt.ckptfmt-deleted", "the next manager of this run ends it"),
        ("diary", "diary/today.txt was not written by a save"),
    }
    after = contents(run)
    gone = before.keys() - after.keys()
    assert gone == {name for name in before if name in OURS or name.startswith(tuple(f"{dead}/" for dead in DEAD))}
    assert all(before[name] == size for name, size in after.items())
    for layout in LAYOUTS:
        assert_same_tree(load(run.at(f"{layout}.ckpt")), TREE)
        assert ckptfmt.verify(run.at(f"{layout}.ckpt").url, storage_options=run.options).ok
    for dead in DEAD:  # the places are free again
        save(run.at(dead), layout="loose" if dead == "loose.dead" else "packed", paged=dead == "paged.dead")
    assert gc(run, delete=True, grace=0).found == ()
    below = gc(run, delete=True, grace=0, recursive=True)
    assert names(run, below.found) == [f"below/.x.{HEX}.ckptfmt-tmp"]


def test_the_clock_is_that_of_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong here takes nothing away that lives, and keeps nothing that died."""
    for layout in DIRECTORIES:
        killed(store.at(f"{layout}.dead"), layout)
    put(store, OURS[0])
    before = contents(store)
    for ahead in (25 * 3600, -25 * 3600, 1e9):
        with monkeypatch.context() as patch:
            now = time.time
            patch.setattr(time, "time", lambda ahead=ahead, now=now: now() + ahead)
            report = gc(store, delete=True)
            assert report.found == ()
            assert {garbage.why for garbage in report.kept} == {"changed within the grace period"}
            assert all(garbage.age < 600 for garbage in report.kept)
    assert contents(store) == before
    monkeypatch.setattr(garbage_on_store, "clock_of", lambda *_: time.time() + 25 * 3600)
    assert len(gc(store, delete=True).found) == 3
    assert contents(store) == {}


def test_the_clock_is_asked_beside_a_save_not_in_it(store: Store) -> None:
    killed(store, "loose")
    report = ckptfmt.gc(store.url, storage_options=store.options, grace=0, delete=True)
    assert [garbage.removed for garbage in report.found] == [True]
    assert contents(store) == {}


def test_what_changed_lately_is_kept(run: Store) -> None:
    before = contents(run)
    report = gc(run, delete=True)
    assert (report.found, contents(run)) == ((), before)
    kept = {name: garbage.why for garbage, name in zip(report.kept, names(run, report.kept), strict=True)}
    assert [kept[name] for name in (*OURS, *DEAD)] == ["changed within the grace period"] * len([*OURS, *DEAD])


def test_the_folder_may_be_what_was_left(store: Store) -> None:
    killed(store, "packed")
    report = ckptfmt.gc(store.url, storage_options=store.options, grace=0, delete=True)
    assert [(garbage.path, garbage.removed) for garbage in report.found] == [(store.url, True)]
    save(store, layout="packed")
    assert ckptfmt.gc(store.url, storage_options=store.options, grace=0, delete=True).found == ()


def test_uploads_in_parts(endpoint: str) -> None:
    """Those of a dead save's directory and of temporaries go; whose others are, nobody can tell."""
    store = Store("s3://bucket/uploads/model.ckpt", s3.options("fsspec", endpoint), endpoint)
    killed(store, "packed")
    client = s3.client(endpoint)
    for name in ("model.ckpt/packs/00001.zip", f".y.ckpt.{HEX}.ckptfmt-tmp", "other.bin", "below/deep.bin"):
        place = {"Bucket": s3.BUCKET, "Key": f"uploads/{name}"}
        upload = client.create_multipart_upload(**place)["UploadId"]
        client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x")
    assert gc(store, delete=True, grace=60).found == ()
    report = gc(store, delete=True, grace=0)
    assert names(store, report.found) == ["model.ckpt", f".y.ckpt.{HEX}.ckptfmt-tmp"]
    assert [(name, found.why) for found, name in zip(report.kept, names(store, report.kept), strict=True)] == [
        ("other.bin", "nobody can tell whose it is")
    ]
    assert sorted(s3.unfinished(endpoint, "uploads")) == ["uploads/below/deep.bin", "uploads/other.bin"]


def test_a_directory_that_comes_alive(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at once more before anything goes."""
    killed(store, "packed")
    for garbage in gc_on_store(store.url, store.options, False, -60, False):
        assert garbage.why == ""
    listed = type(engine_of(store)[0]).entries
    calls = 0

    def entries(self: Any, folder: str) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            put(store, "model.ckpt/packs/00001.zip", b"more")
        return listed(self, folder)

    monkeypatch.setattr(type(engine_of(store)[0]), "entries", entries)
    before = contents(store)
    calls = 0
    (kept,) = ckptfmt.gc(store.url, storage_options=store.options, grace=0, delete=True).kept
    assert kept.why == "changed meanwhile"
    assert contents(store).keys() - before.keys() == {"model.ckpt/packs/00001.zip"}


@pytest.mark.parametrize("moment", ["before COMMIT", "after COMMIT"])
def test_a_save_that_was_taken_for_dead(store: Store, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """It does not say that it saved, and nothing that can be opened is there. [PUB-013] [PUB-016]"""
    check, calls = RemoteDirectory._check_claim, 0

    def collected(attempt: RemoteDirectory) -> None:
        nonlocal calls
        calls += 1
        if calls == (1 if moment == "before COMMIT" else 2):
            place = f"{engine_of(store)[1]}/model.ckpt/CLAIM"
            engine_of(store)[0].put(place, new_claim(), exclusive=False)
        check(attempt)

    monkeypatch.setattr(RemoteDirectory, "_check_claim", collected)
    with pytest.raises(ckptfmt.ExistsError, match="removed meanwhile"):
        save(store, layout="packed")
    with pytest.raises(ckptfmt.NotACheckpointError):
        load(store)
    monkeypatch.undo()
    assert gc(store, delete=True, grace=0).found[0].removed
    save(store, layout="packed")


def test_a_save_that_commits_while_it_is_collected(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`COMMIT` comes between the look and the overwriting of the claim: nothing goes. [PUB-017]"""
    save(store, layout="packed")
    engine, folder = engine_of(store)
    commit = engine.tail(f"{folder}/model.ckpt/COMMIT", 255)[1]
    engine.delete(f"{folder}/model.ckpt/COMMIT")
    put(store, "model.ckpt/CLAIM", new_claim())
    kind, before = type(engine), type(engine).put

    def put_(self: Any, key: str, data: bytes, *, exclusive: bool) -> None:
        if key.endswith("/CLAIM"):
            before(self, key.replace("CLAIM", "COMMIT"), commit, exclusive=True)
        before(self, key, data, exclusive=exclusive)

    monkeypatch.setattr(kind, "put", put_)
    (kept,) = gc(store, delete=True, grace=0).kept
    monkeypatch.undo()
    assert kept.why == "it was committed meanwhile"
    assert_same_tree(load(store), TREE)
    assert ckptfmt.verify(store.url, storage_options=store.options).ok


class Slow(Lazy):
    shape, dtype = LARGE.shape, LARGE.dtype

    def __getitem__(self, region: Any) -> Any:
        time.sleep(0.01)
        return LARGE[region]


@pytest.mark.parametrize("grace", [0.0, 60.0])
def test_a_collection_beside_live_saves(store: Store, grace: float) -> None:
    """With no grace at all, which takes everybody for dead, a save is whole or told that it is not; with enough of it
    no save is disturbed."""
    done = threading.Event()
    removed: list[ckptfmt.Garbage] = []

    def collect() -> None:
        put(store, "there")
        while not done.wait(0.05):
            removed.extend(gc(store, delete=True, grace=grace).found)

    outcomes: dict[str, str] = {}

    def write(writer: int) -> None:
        for number in range(6):
            name = f"{writer}-{number}.ckpt"
            tree = {"w": Slow(), "small": [np.full(9, n) for n in range(5)]}
            try:
                save(store.at(name), tree, layout=DIRECTORIES[number % 2])
                outcomes[name] = "saved"
            except ckptfmt.CkptError as error:
                outcomes[name] = error.code

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(2)]
    collector = threading.Thread(target=collect)
    for thread in (collector, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    collector.join()
    assert len(outcomes) == 12
    if grace > 0:
        assert (set(outcomes.values()), removed) == ({"saved"}, [])
    for name, outcome in outcomes.items():
        if outcome == "saved":
            assert np.array_equal(load(store.at(name))["w"], LARGE)
            assert ckptfmt.verify(store.at(name).url, storage_options=store.options).ok
            continue
        assert outcome == "exists"
        with pytest.raises((ckptfmt.NotACheckpointError, ckptfmt.MissingError)):
            load(store.at(name))


def test_calls_that_cannot_be_carried_out(store: Store) -> None:
    for url, options, code in (
        (store.url, store.options, "not-found"),
        ("https://127.0.0.1:1/run", {}, "bad-option"),
        ("nothing://x/run", {}, "bad-option"),
    ):
        with pytest.raises(ckptfmt.CkptError) as caught:
            ckptfmt.gc(url, storage_options=options)
        assert (caught.value.code, caught.value.path) == (code, url)


def test_the_command(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.environment(endpoint, monkeypatch)
    store = Store("s3://bucket/command/model.ckpt", s3.options("fsspec", endpoint), endpoint)
    killed(store, "packed")
    result = CliRunner().invoke(cli, ["gc", "s3://bucket/command"])
    assert result.exit_code == 0, result.output
    assert "kept s3://bucket/command/model.ckpt: a save into a directory that did not end" in result.stdout
    time.sleep(1.1)  # S3 tells whole seconds
    result = CliRunner().invoke(cli, ["gc", "--delete", "--grace", "0s", "--json", "s3://bucket/command"])
    assert json.loads(result.stdout)["found"][0]["removed"] is True
    assert s3.keys(endpoint, "command") == []
