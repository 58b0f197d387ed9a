"""Pages in layouts `packed` and `loose` (SPEC.md section 7.1): equal to what has none, opened at the cost of what is
touched, and known to all that handles a checkpoint."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from damage import small_pages
from hypothesis import given
from hypothesis import strategies as st
from inside import inside
from migrations import document
from ranks import Ranks, shard

import ckptfmt
from ckptfmt import CorruptError, UnsupportedError
from ckptfmt.cli.app import cli
from ckptfmt.format import manifest as manifests
from ckptfmt.format import paged_manifest
from ckptfmt.format.tensor_pages import TensorPages
from ckptfmt.layouts import packed, paging
from ckptfmt.manager import CheckpointManager
from ckptfmt.reading.checkpoint import StoredCheckpoint
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import trees

each_layout = pytest.mark.parametrize("layout", ["packed", "loose"])
TREE: dict[str, Any] = {
    "layers": [{"w": np.full((2, 3), i, np.float32), "b": np.full(4, i)} for i in range(10)],
    "step": 7,
    "large": np.arange(3000),
    "log": [f"line {i}" for i in range(30)],
}


def save(path: Path, tree: Any = TREE, **options: Any) -> Path:
    with small_pages():
        ckptfmt.save(path, tree, **{"paged": True, "durable": False, **options})
    return path


def pages_of(path: Path) -> list[int]:
    """Where each page begins in `pages.bin`."""
    with StoredCheckpoint(path) as stored:
        assert stored.manifest.pages is not None
        assert stored.manifest.pages.object == "pages.bin"
        return list(accumulate(stored.manifest.pages._pages.lengths[:-1], initial=0))


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


@given(tree=trees(), layout=st.sampled_from(["packed", "loose"]))
def test_it_gives_the_same_tree(tmp_path_factory: pytest.TempPathFactory, tree: Any, layout: str) -> None:
    path = save(tmp_path_factory.mktemp("p") / "t.ckpt", tree, layout=layout)
    assert_same_tree(ckptfmt.load(path), tree)
    assert ckptfmt.verify(path).ok
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.format == (1, 1)
        for key, tensor in checkpoint.tensors.items():
            assert_same_tree(checkpoint[key].read(), tensor.read())


@each_layout
def test_large_manifests_are_paged_and_others_are_as_before(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # [PAGE-010]
    monkeypatch.setattr(paged_manifest, "LEAST_TENSORS", 8)
    for count in (7, 8):
        path = tmp_path / str(count)
        ckptfmt.save(path, {str(i): np.zeros(2) for i in range(count)}, layout=layout, durable=False)
        assert (path / "pages.bin").exists() is (count == 8)
        assert (path / "parts").exists() is (layout == "packed" and count < 8)
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.format == ((1, 1) if count == 8 else (1, 0))


def test_a_slice_of_one_tensor_reads_one_page_and_one_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "PACK_BYTES", 100)
    path = save(tmp_path / "x", layout="packed")
    assert len(list((path / "packs").iterdir())) > 3
    with ckptfmt.open(path) as checkpoint:
        stored = inside(checkpoint)
        pages = stored.manifest.pages
        assert pages is not None
        assert checkpoint["layers/4/w"][1, 1:].tolist() == [4, 4]
        assert len(pages._loaded) == 1
        assert checkpoint.bytes_read == 24
    assert_same_tree(ckptfmt.load(path), TREE)
    assert_same_tree(ckptfmt.load(path, mmap=True), TREE)
    assert ckptfmt.load(path, select="layers/4/**")["layers"][4]["b"].tolist() == [4] * 4


@each_layout
def test_pages_may_be_far_larger_than_their_manifest(tmp_path: Path, layout: str) -> None:  # [LIM-007]
    """Of many long names, or of a long log."""
    limits = ckptfmt.Limits(expansion=1 << 14)
    many = {f"{i:0250}": np.full(1, i % 256, np.uint8) for i in range(1500)}
    for name, tree in (("names", many), ("log", {"log": [f"{i:0300}" for i in range(5000)]})):
        ckptfmt.save(path := tmp_path / name, tree, layout=layout, paged=True, durable=False)
        manifest, pages = ((path / file).stat().st_size for file in ("manifest.msgpack", "pages.bin"))
        assert pages > limits.values(manifest)
        assert_same_tree(ckptfmt.load(path, limits=limits), tree)
        assert ckptfmt.verify(path, limits=limits).ok


def test_threads_that_ask_at_once_decode_each_page_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its values take counts once, too. [LIM-007]"""
    path = save(tmp_path / "x", layout="packed")
    decoded: list[int] = []
    decode = TensorPages._decoded

    def slowly(pages: TensorPages, at: int, raw: bytes) -> Any:
        decoded.append(at)
        time.sleep(0.05)
        return decode(pages, at, raw)

    monkeypatch.setattr(TensorPages, "_decoded", slowly)
    with ckptfmt.open(path) as checkpoint, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: checkpoint[f"layers/{i % 4}/b"][0], range(8)))
        pages = inside(checkpoint).manifest.pages
    assert found == [0, 1, 2, 3] * 2
    assert pages is not None
    assert sorted(decoded) == sorted(pages._loaded)
    assert len(decoded) > 2


@each_layout
def test_a_save_gives_the_same_bytes_again(tmp_path: Path, layout: str) -> None:  # [MAN-009]
    found = [save(tmp_path / name, layout=layout) for name in "ab"]
    first, second = ({f.relative_to(at): f.read_bytes() for f in at.rglob("*") if f.is_file()} for at in found)
    assert first == second


@each_layout
def test_readers_of_1_0_refuse_it_by_name(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x", layout=layout)
    monkeypatch.setattr(manifests, "KNOWN_FEATURES", frozenset())
    with pytest.raises(UnsupportedError, match="pages") as caught:
        ckptfmt.open(path)
    assert caught.value.code == "unknown-feature"


# ---- damage


@each_layout
def test_whichever_page_is_damaged_repair_takes_the_rest(tmp_path: Path, layout: str) -> None:
    places = pages_of(save(tmp_path / "x", layout=layout))
    assert len(places) > 10
    for number, place in enumerate(places):
        path = tmp_path / f"bad-{number}"
        flip(save(path, layout=layout) / "pages.bin", place + 1)
        (damage,) = ckptfmt.verify(path).damage
        assert (damage.code, damage.object, damage.offset) == ("manifest-digest", "pages.bin", place)
        report = ckptfmt.repair(path, tmp_path / f"good-{number}")
        assert not report.ok
        assert len(report.lost) + report.tensors == 21
        assert ckptfmt.verify(tmp_path / f"good-{number}").ok
        lost = {one.name for one in report.lost}
        with ckptfmt.open(tmp_path / f"good-{number}") as rest:
            for at in {"large", *(f"layers/{i}/w" for i in range(10))} - lost:
                np.testing.assert_array_equal(
                    rest[at].read(), TREE["large"] if at == "large" else TREE["layers"][int(at[7])]["w"]
                )


@each_layout
@pytest.mark.parametrize("what", ["missing", "shorter", "longer", "a link"])
def test_an_object_of_pages_that_is_not_as_it_was(tmp_path: Path, layout: str, what: str) -> None:
    pages = save(tmp_path / "x", layout=layout) / "pages.bin"
    raw = pages.read_bytes()
    pages.unlink()
    match what:
        case "shorter":
            pages.write_bytes(raw[:-1])
        case "longer":
            pages.write_bytes(raw + b"\0")
        case "a link":
            (tmp_path / "pages").write_bytes(raw)
            pages.symlink_to(tmp_path / "pages")
    codes = {"missing": "missing-object", "shorter": "short-object", "longer": "bad-extent", "a link": "linked-object"}
    assert {damage.code for damage in ckptfmt.verify(tmp_path / "x").damage} == {codes[what]}
    if what == "longer":
        assert_same_tree(ckptfmt.load(tmp_path / "x"), TREE)
        return
    if what == "a link":
        with pytest.raises(ckptfmt.CkptError, match="linked-object"):
            ckptfmt.repair(tmp_path / "x", tmp_path / "y")
    with pytest.raises(ckptfmt.CkptError) as caught:
        ckptfmt.load(tmp_path / "x")
    assert caught.value.code == codes[what]


@each_layout
def test_repair_without_a_record(tmp_path: Path, layout: str) -> None:
    path = save(tmp_path / "x", layout=layout)
    flip(path / "COMMIT", 12)
    with pytest.raises(CorruptError):
        ckptfmt.load(path)
    assert ckptfmt.repair(path, tmp_path / "y").proof == "sha256"
    (path / "COMMIT").unlink()
    assert ckptfmt.repair(path, tmp_path / "z", uncommitted=True).ok
    for name in "yz":
        assert_same_tree(ckptfmt.load(tmp_path / name), TREE)


# ---- what else handles checkpoints


@each_layout
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_steps_share_whether_they_are_paged_or_not(tmp_path: Path, layout: str, before: bool, after: bool) -> None:
    frozen = {f"w{i}": np.full(5000, i, np.float64) for i in range(12)}
    steps = [{"step": n, "adapter": np.full(9, n), "frozen": frozen} for n in range(3)]
    path = save(tmp_path / "0", steps[0], layout=layout, paged=before)
    for number, is_paged in ((1, after), (2, True)):
        with small_pages():
            report = ckptfmt.save(tmp_path / str(number), steps[number], share_with=path, paged=is_paged, durable=False)
        assert (report.layout, report.not_shared) == (layout, None)
        assert report.shared > 400_000
        path = tmp_path / str(number)
    for number, step in enumerate(steps):
        assert_same_tree(ckptfmt.load(tmp_path / str(number)), step)
        assert ckptfmt.verify(tmp_path / str(number)).ok


@each_layout
def test_nothing_is_shared_with_a_base_of_which_a_page_is_damaged(tmp_path: Path, layout: str) -> None:
    flip(save(tmp_path / "0", layout=layout) / "pages.bin", 3)
    report = ckptfmt.save(tmp_path / "1", TREE, share_with=tmp_path / "0", durable=False)
    assert report.shared == 0
    assert "damaged" in str(report.not_shared)
    assert_same_tree(ckptfmt.load(tmp_path / "1"), TREE)


@each_layout
@pytest.mark.parametrize("to", ["file", "packed", "loose"])
def test_it_is_migrated_converted_and_patched_as_any_other(tmp_path: Path, layout: str, to: str) -> None:
    path = save(tmp_path / "x", layout=layout)
    flat = save(tmp_path / "flat", {"large": TREE["large"], "n": 1}, layout=layout, schema=("s", "1"))
    ckptfmt.migrate(flat, tmp_path / "y", document({"from": "large", "to": "larger"}), schema="2", layout=to)
    assert_same_tree(ckptfmt.load(tmp_path / "y"), {"larger": TREE["large"], "n": 1})
    ckptfmt.convert(path, tmp_path / "z.safetensors", allow_loss=True)
    trained = {**TREE, "large": TREE["large"] + 1}
    new = save(tmp_path / "new", trained, layout=to)
    ckptfmt.patch(path, new, tmp_path / "p")
    assert_same_tree(ckptfmt.load(tmp_path / "p", base=path), trained)


@each_layout
def test_an_upgrade_keeps_pages_where_there_are_many_tensors(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # [FMT-004] [PAGE-010]
    path = save(tmp_path / "x", layout=layout, metadata={"n": 1}, schema=("s", "1"))
    before = {file.name: file.stat().st_ino for file in path.rglob("*") if file.is_file()}
    for least, version in ((8, (1, 1)), (1000, (1, 0))):
        monkeypatch.setattr(paged_manifest, "LEAST_TENSORS", least)
        with small_pages():
            found, report = ckptfmt.upgrade(path, tmp_path / str(least))
        assert (found, report.layout) == ((1, 1), layout)
        with ckptfmt.open(tmp_path / str(least)) as new:
            assert (new.format, new.metadata, new.schema) == (version, {"n": 1}, ckptfmt.Schema("s", "1"))
            assert_same_tree(new.load(), TREE)
            assert [one["operation"] for one in new.provenance] == ["upgrade"]
        assert (tmp_path / str(least) / "pages.bin").exists() is (version == (1, 1))
        assert ckptfmt.verify(tmp_path / str(least)).ok
    with small_pages():
        ckptfmt.upgrade(path, path, overwrite=True)
    assert_same_tree(ckptfmt.load(path), TREE)
    assert before != {file.name: file.stat().st_ino for file in path.rglob("*") if file.is_file()}


@each_layout
def test_a_damaged_page_ends_an_upgrade_and_nothing_is_left(tmp_path: Path, layout: str) -> None:
    flip(save(tmp_path / "x", layout=layout) / "pages.bin", 1)
    with pytest.raises(CorruptError) as caught:
        ckptfmt.upgrade(tmp_path / "x", tmp_path / "y")
    assert caught.value.code == "manifest-digest"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@each_layout
def test_whichever_chunk_is_damaged_repair_takes_the_rest(tmp_path: Path, layout: str) -> None:
    path = save(tmp_path / "x", layout=layout)
    with StoredCheckpoint(path) as stored:
        places = [stored.blocks.place(tensor, 0) for tensor in range(len(stored.manifest.names))]
        names = list(stored.manifest.names)
    for number in (0, 7, 20):
        place = places[number]
        flip(path / place.object, place.extent.offset)
        (damage,) = ckptfmt.verify(path).damage
        assert (damage.code, damage.object, damage.offset) == ("block-digest", place.object, place.extent.offset)
        report = ckptfmt.repair(path, tmp_path / f"good-{number}")
        assert ([one.name for one in report.lost], report.tensors) == ([names[number]], 20)
        assert ckptfmt.verify(tmp_path / f"good-{number}").ok
        flip(path / place.object, place.extent.offset)


@each_layout
@pytest.mark.parametrize("left", [-1, 0])
def test_pages_that_end_early_are_named(tmp_path: Path, layout: str, left: int) -> None:
    pages = save(tmp_path / "x", layout=layout) / "pages.bin"
    pages.write_bytes(pages.read_bytes()[:left])
    damage = ckptfmt.verify(tmp_path / "x").damage
    assert {(one.code, one.object) for one in damage} == {("short-object", "pages.bin")}
    with pytest.raises(CorruptError) as caught:
        ckptfmt.load(tmp_path / "x")
    assert (caught.value.code, caught.value.object) == ("short-object", "pages.bin")


@each_layout
def test_a_damaged_frame_is_made_anew_by_repair(tmp_path: Path, layout: str) -> None:
    path = save(tmp_path / "x", layout=layout)
    name = "packs/00000.zip" if layout == "packed" else "tensors/layers/zarr.json"
    flip(path / name, 20)
    (damage,) = ckptfmt.verify(path).damage
    assert (damage.code, damage.where, damage.object, damage.offset) == ("frame-digest", "frame", name, 20)
    assert ckptfmt.repair(path, tmp_path / "y").tensors == 21
    assert ckptfmt.verify(tmp_path / "y").ok
    assert_same_tree(ckptfmt.load(tmp_path / "y"), TREE)


@each_layout
def test_pages_are_no_bytes_that_steps_have_in_common(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = {f"w{i}": np.full(5000, i, np.float64) for i in range(12)}
    run = tmp_path / "run"
    monkeypatch.setattr(paged_manifest, "LEAST_TENSORS", 8)
    with CheckpointManager(run, layout=layout, share=True, durable=False) as manager, small_pages():
        for step in range(3):
            manager.save(step, {"step": step, "adapter": np.full(9, step), "frozen": frozen})
    document = json.loads(CliRunner().invoke(cli, ["ls", str(run), "--usage", "--json"]).stdout)
    inodes: dict[int, int] = {}
    steps = sorted(path for path in run.iterdir() if path.is_dir())
    for path, row in zip(steps, document["steps"], strict=True):
        files = [file.stat() for file in path.rglob("*") if file.is_file()]
        inodes |= {file.st_ino: file.st_size for file in files}
        assert (path / "pages.bin").stat().st_nlink == 1
        assert row["own"] == sum(file.st_size for file in files if file.st_nlink == 1)
        assert row["shared"] == sum(file.st_size for file in files if file.st_nlink > 1) > 400_000
    assert len(steps) == 3
    assert document["on_disk"] == sum(inodes.values())


# ---- many processes


def save_many_chunks(folder: Path, coordinator: Any) -> Any:
    paged_manifest.LEAST_TENSORS, paging.MOST_OF_RANKS = 4, 5
    ckptfmt.save(folder / "x.ckpt", tree_of(coordinator.rank, 2), coordinator=coordinator, durable=False)


def test_of_very_many_chunks_ranks_keep_their_own_tables(tmp_path: Path) -> None:
    Ranks(save_many_chunks, tmp_path, 2).outcomes()
    assert not (tmp_path / "x.ckpt/pages.bin").exists()
    assert len(list((tmp_path / "x.ckpt/parts").iterdir())) == 2
    assert ckptfmt.verify(tmp_path / "x.ckpt").ok


def save_together(folder: Path, coordinator: Any) -> Any:
    paged_manifest.LEAST_TENSORS, packed.PACK_BYTES = 4, 2000
    path, base = folder / "x.ckpt", folder / "0.ckpt"
    tree = tree_of(coordinator.rank, coordinator.size)
    ckptfmt.save(base, tree, coordinator=coordinator, durable=False, statistics=True)
    tree["step"] = 2
    return ckptfmt.save(path, tree, coordinator=coordinator, durable=False, share_with=base).shared


def tree_of(rank: int, size: int) -> dict[str, Any]:
    whole = {f"z{9 - i}": shard(np.arange(400) + i, rank, size) for i in range(8)}
    return {"step": 1, "whole": whole, "all": np.arange(5), "text": "x"}


@pytest.mark.parametrize("size", [1, 3])
def test_ranks_save_pages_together(tmp_path: Path, size: int) -> None:
    shared = Ranks(save_together, tmp_path, size).outcomes()
    expected = {
        "step": 1,
        "whole": {f"z{9 - i}": np.arange(400) + i for i in range(8)},
        "all": np.arange(5),
        "text": "x",
    }
    assert len(set(shared.values())) == 1
    assert shared[0] > 10_000
    for name, step in (("0.ckpt", 1), ("x.ckpt", 2)):
        path = tmp_path / name
        assert sorted(file.name for file in path.iterdir()) == ["COMMIT", "manifest.msgpack", "packs", "pages.bin"]
        assert_same_tree(ckptfmt.load(path), {**expected, "step": step})
        assert ckptfmt.verify(path).ok
    found = ckptfmt.stats(tmp_path / "0.ckpt", stored=True)
    assert {tensor.stored for tensor in found.tensors} == {True}
