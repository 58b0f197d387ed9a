"""Saves that share what has not changed with an earlier checkpoint: what is linked, what is written, and that each of
the two is whole without the other. [LAY-008] [LAY-009]"""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from damage import flipped
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.frameworks.sources import Lazy, Region
from ckptfmt.layouts import shared_packs
from ckptfmt.manager import CheckpointManager, Every, Last, SharingWarning
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import assert_same_tree, using_disk

LAYOUTS = ("packed", "loose")
Scratch = Callable[[], AbstractContextManager[str]]
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def tree(step: int, *, frozen: int = 0) -> dict[str, Any]:
    """Nearly all of its bytes change with `frozen` alone, the others with each step."""
    draw = np.random.default_rng(frozen)
    large = {f"w{i}": draw.standard_normal((100, 1000), np.float32) for i in range(5)}
    return {"frozen": large, "adapter": np.full(3000, step, np.float64), "step": step, "tiny": np.arange(3 + frozen)}


def save(path: Path, step: int, base: Path | None = None, *, frozen: int = 0, **options: Any) -> Any:
    if base is not None:
        options["share_with"] = base
    return ckptfmt.save(path, tree(step, frozen=frozen), **{"layout": "packed", "durable": False, **options})


def packs(path: Path) -> dict[str, int]:
    """The packs of a checkpoint, and how many names each has."""
    return {pack.name: pack.stat().st_nlink for pack in sorted((path / "packs").iterdir())}


def check(path: Path, expected: Any) -> None:
    """It is what was saved, for this package and for a stock Zarr reader, and every byte is as it was."""
    assert ckptfmt.verify(path).damage == ()
    assert_same_tree(ckptfmt.load(path), expected)
    if (path / "packs").exists():
        folder = path.parent / f"{path.name}-unpacked"
        unpacked(path, folder)
    else:
        folder = path
    group = zarr.open_group(folder / "tensors", mode="r")
    for name, array in tensors(expected):
        np.testing.assert_array_equal(group[name][...], array)  # type: ignore[index]
    if folder != path:
        shutil.rmtree(folder)


def tensors(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{name}/{key}".lstrip("/"))
    elif isinstance(value, np.ndarray):
        yield name, value


def unpacked(path: Path, folder: Path) -> None:
    """As docs/zarr.md says: packs from the last to the first, node documents from the first alone."""
    found = sorted((path / "packs").iterdir())
    for number, pack in reversed([*enumerate(found)]):
        with zipfile.ZipFile(pack) as archive:
            names = [name for name in archive.namelist() if not (number and name.endswith("zarr.json"))]
            archive.extractall(folder, names)


# ---- what is shared


@each_layout
def test_what_has_not_changed_is_linked_and_each_is_whole_by_itself(tmp_path: Path, layout: str) -> None:
    paths = [tmp_path / f"{step}" for step in range(4)]
    reports = [save(path, n, paths[n - 1] if n else None, layout=layout) for n, path in enumerate(paths)]
    assert [report.shared > 0.9 * report.bytes for report in reports] == [False, True, True, True]
    assert all(report.not_shared is None for report in reports)
    for report, path in zip(reports, paths, strict=True):
        assert report.bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    for n in (0, 2, 1):  # in any order
        shutil.rmtree(paths[n])
        for left in (path for path in paths if path.exists()):
            check(left, tree(int(left.name)))


def test_packs_lie_behind_the_new_one_in_their_order(tmp_path: Path) -> None:
    save(tmp_path / "0", 0)
    save(tmp_path / "1", 1, tmp_path / "0")
    save(tmp_path / "2", 2, tmp_path / "1")
    assert packs(tmp_path / "0") == {"00000.zip": 3}
    assert packs(tmp_path / "1") == packs(tmp_path / "2") == {"00000.zip": 1, "00001.zip": 3}


def test_what_changes_and_what_does_not_lie_apart_after_two_saves(tmp_path: Path) -> None:
    """The first pack has too much that is dead to be kept for the rest."""

    def half(step: int) -> dict[str, Any]:
        return {"a": np.arange(100_000), "b": np.full(100_000, step)}

    ckptfmt.save(tmp_path / "0", half(0), layout="packed")
    second = ckptfmt.save(tmp_path / "1", half(1), share_with=tmp_path / "0")
    third = ckptfmt.save(tmp_path / "2", half(2), share_with=tmp_path / "1")
    assert (second.layout, second.shared, second.not_shared) == ("packed", 0, None)
    assert third.shared == (tmp_path / "1/packs/00001.zip").stat().st_size
    assert packs(tmp_path / "2") == {"00000.zip": 1, "00001.zip": 2}
    for step in range(3):
        check(tmp_path / f"{step}", half(step))


def test_dead_bytes_of_linked_packs_are_bounded(tmp_path: Path) -> None:
    """One tensor after another changes, and stays so."""
    now = {f"w{i:02d}": np.full(20_000, i, np.float32) for i in range(20)}
    ckptfmt.save(tmp_path / "0", now, layout="packed", durable=False)
    for step in range(1, 21):
        now = {**now, f"w{step - 1:02d}": np.full(20_000, -step, np.float32)}
        report = ckptfmt.save(tmp_path / f"{step}", now, share_with=tmp_path / f"{step - 1}", durable=False)
        assert report.bytes < 20 * 80_000 / (1 - shared_packs.MOST_DEAD) + 30_000, "the dead bytes of all its packs"
    check(tmp_path / "20", now)


def test_few_packs_are_linked_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_packs, "MOST_LINKED", 3)
    now = {f"w{i}": np.full(20_000, i) for i in range(12)}
    ckptfmt.save(tmp_path / "0", now, layout="packed")
    for step in range(1, 13):
        now = {**now, f"w{step % 12}": np.full(20_000, -step)}
        report = ckptfmt.save(tmp_path / f"{step}", now, share_with=tmp_path / f"{step - 1}")
        assert len(packs(tmp_path / f"{step}")) <= 5
        assert report.shared > 0
    check(tmp_path / "12", now)


def test_tensors_that_come_go_and_change_their_kind(tmp_path: Path) -> None:
    """A node of an earlier step, and an older chunk, are no part of a later one."""
    keep = {"keep": np.arange(200_000)}
    first = {**keep, "gone": np.ones(5000), "other": {"kind": np.ones((2, 3), np.float32)}}
    second = {**keep, "other": {"kind": np.ones((3, 2), np.float32)}, "new": np.zeros(7)}
    third = {**second, "other": {"kind": np.ones((3, 2), np.float64)}, "gone": np.ones(5000)}
    ckptfmt.save(tmp_path / "0", first, layout="packed")
    for n, value in enumerate((second, third), 1):
        assert ckptfmt.save(tmp_path / f"{n}", value, share_with=tmp_path / f"{n - 1}").shared > 1_000_000
    for n, value in enumerate((first, second, third)):
        check(tmp_path / f"{n}", value)


@each_layout
@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"digest": "sha256"}, {"durable": True}])
def test_options_of_saves(tmp_path: Path, layout: str, options: dict[str, Any]) -> None:
    save(tmp_path / "0", 0, layout=layout, **options)
    assert save(tmp_path / "1", 1, tmp_path / "0", layout=layout, **options).shared > 0
    check(tmp_path / "1", tree(1))


@each_layout
def test_chunks_of_a_compressed_tensor(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first has changed the others are not compressed to find out; where it has not, each is looked at."""
    monkeypatch.setattr("ckptfmt.writing.request.COMPRESSED_CHUNK", 80_000)
    x = np.random.default_rng(0).standard_normal(100_000)
    ckptfmt.save(tmp_path / "0", {"x": x}, layout=layout, compression="zstd")
    other = x.copy()
    other[-1] = 0
    report = ckptfmt.save(tmp_path / "1", {"x": other}, share_with=tmp_path / "0", compression="zstd")
    assert 0.8 < report.shared / report.bytes < 1
    first = x.copy()
    first[0] = 0
    assert ckptfmt.save(tmp_path / "2", {"x": first}, share_with=tmp_path / "0", compression="zstd").shared == 0
    for n, value in enumerate((x, other, first)):
        check(tmp_path / f"{n}", {"x": value})


def test_packed_is_the_layout_unless_the_base_is_loose(tmp_path: Path) -> None:
    for layout, expected in (("packed", "packed"), ("loose", "loose"), ("file", "packed")):
        ckptfmt.save(tmp_path / layout, tree(0), layout=layout)
        report = ckptfmt.save(tmp_path / f"{layout}-1", tree(1), share_with=tmp_path / layout)
        assert report.layout == expected
        assert (report.not_shared is None) == (layout != "file")
    assert "has layout 'file'" in str(report.not_shared)


def test_replacing_the_base_itself(tmp_path: Path) -> None:
    save(tmp_path / "x", 0)
    assert save(tmp_path / "x", 1, tmp_path / "x", overwrite=True).shared > 0
    check(tmp_path / "x", tree(1))


def test_nothing_and_everything_changed(tmp_path: Path) -> None:
    save(tmp_path / "0", 0)
    same = save(tmp_path / "same", 0, tmp_path / "0")
    assert same.shared > 0.99 * same.bytes - 10_000
    assert save(tmp_path / "other", 1, tmp_path / "0", frozen=1).shared == 0
    check(tmp_path / "same", tree(0))
    check(tmp_path / "other", tree(1, frozen=1))
    for n, value in enumerate(({}, {"a": 1}, {"e": np.zeros((0, 3))})):
        ckptfmt.save(tmp_path / f"e{n}", value, layout="packed")
        ckptfmt.save(tmp_path / f"f{n}", value, share_with=tmp_path / f"e{n}")
        check(tmp_path / f"f{n}", value)


def test_progress_counts_what_is_shared(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    for n in range(2):
        save(tmp_path / f"{n}", n, tmp_path / "0" if n else None, progress=lambda *done: said.append(done))
        assert said[-1][0] == said[-1][1]


class Shifting(Lazy):
    """A tensor that changes whenever it is looked at, as one in use may."""

    def __init__(self, values: list[np.ndarray[Any, Any]]) -> None:
        self._values = values
        self.shape, self.dtype = values[0].shape, values[0].dtype

    def __getitem__(self, region: Region) -> np.ndarray[Any, Any]:
        return (self._values.pop(0) if len(self._values) > 1 else self._values[0])[region]


@each_layout
def test_a_tensor_that_changes_while_it_is_compared(tmp_path: Path, layout: str) -> None:
    """It is one of its states, and can be read: what is linked has the digests of its own bytes. [BLK-008]"""
    old, new = np.zeros(50_000), np.ones(50_000)
    ckptfmt.save(tmp_path / "0", {"x": old}, layout=layout)
    for n, states in enumerate(([old, new], [new, old], [new, new])):
        ckptfmt.save(tmp_path / f"s{n}", {"x": Shifting([*states])}, share_with=tmp_path / "0")
        assert ckptfmt.verify(tmp_path / f"s{n}").ok
        assert ckptfmt.load(tmp_path / f"s{n}")["x"][0] in (0, 1)


# ---- where nothing can be linked


class Linkless(Disk):
    """A file system without links, or with other reasons to refuse them."""

    def __init__(self, number: int = errno.EPERM, *, clones: bool = False, most: int = 0) -> None:
        self._number, self._clones, self._left = number, clones, most

    def link_open(self, fd: int, target: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise OSError(self._number, os.strerror(self._number))
        super().link_open(fd, target)

    def clone(self, fd: int, source: int) -> None:
        if not self._clones:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self.copy(fd, 0, source, 0, os.fstat(source).st_size)  # as programs see it


@each_layout
@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_links_are_refused_all_is_written_and_the_report_says_why(
    tmp_path: Path, layout: str, number: int
) -> None:
    save(tmp_path / "0", 0, layout=layout)
    with using_disk(Linkless(number)):
        report = save(tmp_path / "1", 1, tmp_path / "0", layout=layout)
    assert report.shared == 0
    assert errno.errorcode[number] in str(report.not_shared)
    check(tmp_path / "1", tree(1))
    assert all(file.stat().st_nlink == 1 for file in tmp_path.rglob("*") if file.is_file())


@each_layout
def test_reflinks_in_the_place_of_links(tmp_path: Path, layout: str) -> None:
    save(tmp_path / "0", 0, layout=layout)
    with using_disk(Linkless(clones=True)):
        report = save(tmp_path / "1", 1, tmp_path / "0", layout=layout)
    assert report.shared > 0
    assert report.not_shared is None
    check(tmp_path / "1", tree(1))


def test_a_file_that_has_all_the_names_it_may_have_is_written_anew(tmp_path: Path) -> None:
    """Of two packs one cannot be linked: the other is, under another number than it was to have."""
    now = {"a": np.arange(50_000), "b": np.arange(60_000)}
    ckptfmt.save(tmp_path / "0", now, layout="packed")
    now = {**now, "b": np.arange(60_000) + 1, "c": np.zeros(5)}
    ckptfmt.save(tmp_path / "1", now, share_with=tmp_path / "0")
    ckptfmt.save(tmp_path / "2", {**now, "c": np.ones(5)}, share_with=tmp_path / "1")
    assert list(packs(tmp_path / "2")) == ["00000.zip", "00001.zip", "00002.zip"]
    with using_disk(Linkless(errno.EMLINK, most=1)):
        report = ckptfmt.save(tmp_path / "3", {**now, "c": np.full(5, 2)}, share_with=tmp_path / "2")
    assert "EMLINK" in str(report.not_shared)
    check(tmp_path / "3", {**now, "c": np.full(5, 2)})


def test_on_another_disk_or_store(tmp_path: Path) -> None:
    save(tmp_path / "0", 0)
    report = ckptfmt.save("memory://shared/other.ckpt", tree(1), share_with=tmp_path / "0")
    assert (report.shared, report.not_shared) == (0, "it is not in the store that is saved to")
    assert ckptfmt.verify("memory://shared/other.ckpt").ok
    report = save(tmp_path / "1", 1, "memory://shared/other.ckpt")  # type: ignore[arg-type]
    assert (report.shared, report.not_shared) == (0, "it is not on this machine's disk")
    check(tmp_path / "1", tree(1))


# ---- bases that are no good


def test_a_base_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no checkpoint")
    (tmp_path / "folder").mkdir()
    save(tmp_path / "torn", 0)
    (tmp_path / "torn/COMMIT").write_bytes(b"ckptfmt/1.0 packed\n")
    for name, code in (
        ("missing", "not-found"),
        ("text", "not-a-checkpoint"),
        ("folder", "not-a-checkpoint"),
        ("torn", "bad-record"),
    ):
        with pytest.raises(ckptfmt.CkptError) as caught:
            save(tmp_path / "1", 1, tmp_path / name)
        assert caught.value.code == code
        assert not (tmp_path / "1").exists()
    for bad, options in ((b"bytes", {}), (tmp_path / "torn", {"layout": "file"})):
        with pytest.raises(ckptfmt.InputError) as refused:
            ckptfmt.save(tmp_path / "1", tree(1), share_with=bad, **options)
        assert refused.value.code == "bad-option"


def test_a_base_with_other_digests(tmp_path: Path) -> None:
    save(tmp_path / "0", 0, digest="sha256")
    report = save(tmp_path / "1", 1, tmp_path / "0")
    assert report.shared == 0
    assert "sha256" in str(report.not_shared)
    check(tmp_path / "1", tree(1))


@pytest.mark.parametrize("what", ["pack missing", "pack shorter", "pack longer", "table missing", "table changed"])
def test_a_damaged_base_is_not_linked(tmp_path: Path, what: str) -> None:
    save(tmp_path / "0", 0)
    pack, table = tmp_path / "0/packs/00000.zip", tmp_path / "0/parts/00000.msgpack"
    match what:
        case "pack missing":
            pack.unlink()
        case "pack shorter":
            os.truncate(pack, pack.stat().st_size - 1)
        case "pack longer":
            os.truncate(pack, pack.stat().st_size + 1)
        case "table missing":
            table.unlink()
        case _:
            table.write_bytes(table.read_bytes()[:-1] + b"?")
    report = save(tmp_path / "1", 1, tmp_path / "0")
    assert report.shared == 0
    check(tmp_path / "1", tree(1))


def test_a_changed_frame_is_found_before_it_is_taken_over(tmp_path: Path) -> None:
    """Where less of a pack is taken than before, its frame is read, and must be what it was."""
    save(tmp_path / "0", 0)
    with flipped(tmp_path / "0/packs/00000.zip", 14, 0):  # of a ZIP header
        report = save(tmp_path / "1", 1, tmp_path / "0")
    assert report.shared == 0
    assert "damaged" in str(report.not_shared)
    check(tmp_path / "1", tree(1))


@each_layout
def test_a_bit_that_flips_in_a_shared_object_is_found_in_each_that_has_it(tmp_path: Path, layout: str) -> None:
    """That is the price of a link; what others wrote is whole."""
    save(tmp_path / "0", 0, layout=layout)
    save(tmp_path / "1", 1, tmp_path / "0", layout=layout)
    file = tmp_path / "0" / ("packs/00000.zip" if layout == "packed" else "tensors/frozen/w1/c/0/0")
    offset = file.read_bytes().index(tree(0)["frozen"]["w1"].tobytes()) + 50_000
    with flipped(file, offset, 3):
        for step in range(2):
            found = ckptfmt.verify(tmp_path / f"{step}").damage
            assert [(damage.code, damage.tensor) for damage in found] == [("block-digest", "frozen/w1")]
            assert_same_tree(ckptfmt.load(tmp_path / f"{step}", select="adapter")["adapter"], tree(step)["adapter"])
        save(tmp_path / "2", 2, tmp_path / "1", layout=layout)  # which takes the bytes as they are
        assert [damage.tensor for damage in ckptfmt.verify(tmp_path / "2").damage] == ["frozen/w1"]
        with pytest.raises(ckptfmt.CorruptError):
            save(tmp_path / "3", 3, tmp_path / "1", layout=layout, check=lambda checkpoint: checkpoint.load())
        assert not (tmp_path / "3").exists()


@each_layout
def test_repair_and_replacing_leave_what_others_share_alone(tmp_path: Path, layout: str) -> None:
    """[LAY-008]"""
    save(tmp_path / "0", 0, layout=layout)
    save(tmp_path / "1", 1, tmp_path / "0", layout=layout)
    before = {file: file.read_bytes() for file in (tmp_path / "0").rglob("*") if file.is_file()}
    (tmp_path / "1/manifest.msgpack").write_bytes(b"")
    ckptfmt.gc(tmp_path, delete=True, grace=0)
    save(tmp_path / "1", 5, tmp_path / "0", layout=layout, overwrite=True)
    ckptfmt.upgrade(tmp_path / "1", tmp_path / "1", overwrite=True)
    ckptfmt.repair(tmp_path / "1", tmp_path / "repaired")
    assert {file: file.read_bytes() for file in before} == before
    check(tmp_path / "1", tree(5))


# ---- any sequence


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["save", "save", "save", "delete", "copy"]), st.integers(0, 9), st.integers(0, 63)),
    min_size=2,
    max_size=10,
)


@each_layout
@settings(max_examples=15)
@given(ACTIONS)
def test_any_sequence_leaves_every_kept_step_as_it_was(
    scratch: Scratch, layout: str, actions: list[tuple[str, int, int]]
) -> None:
    """Of saves with any of the steps there, deletions and copies. Bits of a mask say which tensors change."""
    kept: dict[Path, dict[str, Any]] = {}
    values = {f"w{i}": np.full(9_000 if i < 3 else 40, i, np.float64) for i in range(6)}
    with scratch() as folder:
        for number, (action, which, mask) in enumerate(actions):
            path = Path(folder) / f"{number}"
            base = sorted(kept)[which % len(kept)] if kept else None
            if action == "save" or base is None:
                changed = {f"w{i}": np.full_like(values[f"w{i}"], number + 10) for i in range(6) if mask >> i & 1}
                values = {**(kept[base] if base else values), **changed}
                ckptfmt.save(path, values, **({"share_with": base} if base else {"layout": layout}), durable=False)
                kept[path] = values
            elif action == "delete" and len(kept) > 1:
                shutil.rmtree(base)
                del kept[base]
            else:
                shutil.copytree(base, path)
                kept[path] = kept[base]
        for path, expected in kept.items():
            check(path, expected)


# ---- runs


def run(folder: Path, steps: range, **options: Any) -> list[Any]:
    """The reports of the saves of a run that shares."""
    reports: list[Any] = []
    options = {"share": True, "durable": False, **options}
    with CheckpointManager(folder, on_commit=lambda _, report: reports.append(report), **options) as manager:
        for step in steps:
            manager.save(step, tree(step), block=step % 2 == 0)
    return reports


@each_layout
@pytest.mark.parametrize("by", ["thread", "process"])
def test_a_run_shares_with_the_newest_step(tmp_path: Path, layout: str, by: str) -> None:
    reports = run(tmp_path / "run", range(4), layout=layout, background=by, keep=[Last(1), Every(3)])
    reports += run(tmp_path / "run", range(4, 6), layout=layout, background=by, keep=[Last(1), Every(3)])
    assert [report.shared > 0.9 * report.bytes for report in reports] == [False] + 5 * [True]
    with CheckpointManager(tmp_path / "run") as manager:
        assert [step.step for step in manager.steps()] == [0, 3, 5]
        for step in manager.steps():
            check(Path(step.path), tree(step.step))


def test_going_back(tmp_path: Path) -> None:
    run(tmp_path / "run", range(4))
    with CheckpointManager(tmp_path / "run", share=True) as manager:
        manager.save(1, tree(7), overwrite="later")
        assert_same_tree(manager.restore(), tree(7))
        check(Path(manager.latest().path), tree(7))  # type: ignore[union-attr]


def test_a_run_whose_last_step_cannot_be_read_is_written_in_full_and_says_so_once(tmp_path: Path) -> None:
    run(tmp_path / "run", range(1))
    manifest = next((tmp_path / "run").glob("*/manifest.msgpack"))
    manifest.write_bytes(manifest.read_bytes()[:-1] + b"?")
    with pytest.warns(SharingWarning, match="step 1 shares nothing .*cannot be read"):
        reports = run(tmp_path / "run", range(1, 4))
    assert [report.shared > 0 for report in reports] == [False, True, True]


def test_a_run_on_a_disk_without_links_says_so_once(tmp_path: Path) -> None:
    with using_disk(Linkless()), pytest.warns(SharingWarning, match="EPERM") as said:
        reports = run(tmp_path / "run", range(4))
    assert len(said) == 1
    assert [report.shared for report in reports] == [0] * 4


def test_options_of_a_run_that_shares(tmp_path: Path) -> None:
    for options in ({"share": True, "layout": "file"}, {"share": 1}, {"share": "packed"}):
        with pytest.raises(ckptfmt.InputError) as caught:
            CheckpointManager(tmp_path, **options)
        assert caught.value.code == "bad-option"


@each_layout
def test_figures_of_what_is_linked_are_stored_too(tmp_path: Path, layout: str) -> None:
    for n in range(2):
        save(tmp_path / f"{n}", n, tmp_path / "0" if n else None, layout=layout, statistics=True)
    assert all(tensor.stored for tensor in ckptfmt.stats(tmp_path / "1", stored=True).tensors)
    ckptfmt.stats(tmp_path / "1", stored="check")
    spoilt = {**tree(2), "adapter": np.full(3000, np.nan)}
    with pytest.raises(ckptfmt.InputError) as caught:
        ckptfmt.save(tmp_path / "2", spoilt, share_with=tmp_path / "1", on_nan="refuse")
    assert caught.value.code == "has-nan"
