"""Everything that changes a disk, as operations on a folder, with the states that a power loss may leave of each."""

from __future__ import annotations

import itertools
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.manager import Every, HistoryWarning, Last, SharingWarning
from ckptfmt.manager.run_on_disk import RunOnDisk
from ckptfmt.manager.steps import FixedNames
from ckptfmt.storage import disk as disks
from ckptfmt.storage.disk import Disk
from ckptfmt.storage.temporaries import beside
from ckptfmt.testing import using_disk

LAYOUTS = ("file", "packed", "loose")
RANKS = 3
PATIENCE = 10.0  # seconds that a rank waits for others, one of which may have been lost
PATH = "model.ckpt"

State = dict[str, str]  # what stands at each path below the folder: a key of `TREES`, or "before" or "after"


@dataclass(frozen=True)
class Operation:
    """`act` changes the folder that `prepare` made. `during`: the states that may be found if the power fails at any
    moment, `after`: once it is done. `removes`: temporaries of others, so that where it fails one may stay."""

    name: str
    prepare: Callable[[Path], Any]
    act: Callable[[Path], Any]
    during: tuple[State, ...]
    after: tuple[State, ...]
    durable: bool = True
    removes: bool = False


def tree(label: str, scale: int = 1) -> dict[str, Any]:
    """A tree whose every value says which it is. Some tensors take several sectors of a disk."""
    number = sum(label.encode())
    return {
        "label": label,
        "large": np.full((4, 96 * scale), number, np.float64),
        "more": [np.arange(number % 7), np.full(300, number, np.int16), {"scalar": np.array(number)}],
    }


def moved(label: str) -> dict[str, Any]:
    """`tree` after the migration that `migrate` runs."""
    old = tree(label)
    return {"label": label, "big": old["large"], "more": old["more"]}


OLD, NEW = "old", "new"
STEPS = ("step 0", "step 1", "step 2", "step 3")
TREES = {label: tree(label) for label in (OLD, NEW, *STEPS)} | {"moved": moved(OLD), NEW: tree(NEW, 2)}
MIGRATION = {
    "ckptfmt_migration": 1,
    "schema": "model",
    "from": "1",
    "to": "2",
    "rest": "keep",
    "rules": [{"from": "large", "to": "big"}],
}


def save(label: str, folder: Path, *, path: str = PATH, **options: Any) -> None:
    ckptfmt.save(folder / path, TREES[label], **options)


def save_together(label: str, folder: Path, **options: Any) -> None:
    """All ranks of a parallel save, each in a thread, with its columns of the large tensor."""
    failures: list[BaseException] = []

    def rank(number: int) -> None:
        whole = TREES[label]["large"]
        mine = np.array_split(whole, RANKS, axis=1)[number]
        shard = Shard((0, number * mine.shape[1]), mine)
        large = Sharded(whole.shape, whole.dtype, (shard,))
        try:
            with ckptfmt.FileCoordinator(mail, number, RANKS, timeout=PATIENCE) as coordinator:
                ckptfmt.save(folder / PATH, {**TREES[label], "large": large}, coordinator=coordinator, **options)
        except BaseException as error:
            failures.append(error)

    mail = folder.parent / f"{folder.name}-mail"
    mail.mkdir(exist_ok=True)
    threads = [threading.Thread(target=rank, args=(number,)) for number in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while mail.exists():  # a session in which a rank was lost stays; a collection beside may be at it, too
        with suppress(FileNotFoundError):
            shutil.rmtree(mail)
    if failures:
        raise min(failures, key=lambda error: getattr(error, "errno", None) is None)  # the cause before its echoes


# ---- the operations


def operations() -> Iterator[Operation]:
    yield from _saves()
    yield from _shared_saves()
    yield from _runs()
    yield from _rewrites()
    yield from _patches()
    yield from _histories()
    yield from _collections()


def nothing(folder: Path) -> None:
    """An empty folder."""


def _replacing(name: str, prepare: Any, act: Any, new: str = NEW, old: str = OLD, **more: Any) -> Operation:
    return Operation(name, prepare, act, ({PATH: old}, {PATH: new}), ({PATH: new},), **more)


def _saves() -> Iterator[Operation]:
    for layout in LAYOUTS:
        new = partial(save, NEW, layout=layout)
        yield Operation(f"save {layout}", nothing, new, ({}, {PATH: NEW}), ({PATH: NEW},))
        loosely = partial(new, durable=False)
        yield Operation(f"save {layout}, not durable", nothing, loosely, ({}, {PATH: NEW}), ({PATH: NEW},), False)
        for before in LAYOUTS:
            old = partial(save, OLD, layout=before)
            yield _replacing(f"replace {before} by {layout}", old, partial(new, overwrite=True))
        old = partial(save, OLD, layout=layout)
        yield _replacing(f"replace {layout}, not durable", old, partial(loosely, overwrite=True), durable=False)
        zipped = partial(new, overwrite=True, compression="zstd")
        yield _replacing(f"replace {layout}, compressed", old, zipped)
        paged = partial(new, paged=True)
        yield Operation(f"save {layout}, paged", nothing, paged, ({}, {PATH: NEW}), ({PATH: NEW},))
        yield _replacing(f"replace {layout} by paged", old, partial(paged, overwrite=True))
    together = partial(save_together, NEW)
    yield Operation("parallel save", nothing, together, ({}, {PATH: NEW}), ({PATH: NEW},))
    yield _replacing("parallel replace", partial(save, OLD, layout="packed"), partial(together, overwrite=True))


TREES["frozen"] = tree("frozen", 20)
TREES["trained"] = {**tree("trained"), "large": TREES["frozen"]["large"]}


def _shared_saves() -> Iterator[Operation]:
    """What has not changed is linked; the checkpoint that had it first stays as it is, or is replaced."""
    for layout in ("packed", "loose"):
        old = partial(save, "frozen", layout=layout)
        new = {PATH: "frozen", "next.ckpt": "trained"}
        beside = partial(_save_sharing, "next.ckpt")
        yield Operation(f"save {layout}, sharing", old, beside, ({PATH: "frozen"}, new), (new,))
        in_place = partial(_save_sharing, PATH, overwrite=True)
        yield _replacing(f"replace {layout}, sharing", old, in_place, "trained", old="frozen")
        first, second = {_path(0): "frozen"}, {_path(1): "trained"}
        yield Operation(
            f"save a step that shares, and prune {layout}",
            partial(_save_step, 0, layout=layout, label="frozen"),
            partial(_save_step, 1, layout=layout, label="trained", keep=1, share=True),
            (first, {**first, **second}, second),
            ({**first, **second}, second),  # what is pruned may come back, whole
        )

    ranks = partial(save_together, "frozen")
    yield _replacing("parallel replace, sharing", ranks, _share_together, "trained", old="frozen")


def _share_together(folder: Path) -> None:
    save_together("trained", folder, overwrite=True, share_with=folder / PATH)


def _save_sharing(path: str, folder: Path, **options: Any) -> None:
    save("trained", folder, path=path, share_with=folder / PATH, **options)


def _runs() -> Iterator[Operation]:
    """A run directory: the paths are those of steps."""
    for layout in LAYOUTS:
        yield Operation(
            f"first save of a run {layout}",
            nothing,
            partial(_save_step, 0, layout=layout),
            ({}, _steps(0)),
            (_steps(0),),
        )
        rest = [_steps(*kept, 2) for kept in ((0, 1), (0,), (1,), ())]  # what is pruned may come back, whole
        yield Operation(
            f"save a step and prune {layout}",
            partial(_prepare_run, 2, layout),
            partial(_save_step, 2, layout=layout, keep=1),
            (_steps(0, 1), *rest),
            tuple(rest),
        )
        rewound = {**_steps(0), _path(1): NEW}
        yield Operation(
            f"overwrite a step and all later {layout}",
            partial(_prepare_run, 4, layout),
            partial(_save_step, 1, layout=layout, label=NEW, overwrite="later"),
            (_steps(0, 1, 2, 3), *({**_steps(*range(last + 1)), **rewound} for last in (3, 2, 1))),
            (rewound,),
        )
        pruned = [_steps(*kept, 3) for n in range(4) for kept in itertools.combinations(range(3), n)]
        yield Operation(
            f"prune {layout}", partial(_prepare_run, 4, layout), _prune, (_steps(0, 1, 2, 3), *pruned), tuple(pruned)
        )
        yield Operation(f"sweep {layout}", partial(_prepare_leftovers, layout), _sweep, (_steps(1),), (_steps(1),))


def _path(step: int) -> str:
    return f"runs/7/step-{step:010d}.ckpt"


def _steps(*numbers: int) -> State:
    return {_path(number): STEPS[number] for number in numbers}


def _manager(folder: Path, **options: Any) -> ckptfmt.CheckpointManager:
    return ckptfmt.CheckpointManager(folder / "runs" / "7", **options)


def _save_step(
    number: int,
    folder: Path,
    *,
    layout: str,
    keep: int | None = None,
    label: str = "",
    overwrite: Any = False,
    share: bool = False,
) -> None:
    with warnings.catch_warnings(), _manager(folder, keep=keep, layout=layout, share=share) as manager:
        warnings.simplefilter("ignore", SharingWarning)  # of a disk that refuses a link
        manager.save(number, TREES[label or STEPS[number]], overwrite=overwrite)


def _prepare_run(steps: int, layout: str, folder: Path) -> None:
    for number in range(steps):
        _save_step(number, folder, layout=layout)


def _prune(folder: Path) -> None:
    with _manager(folder, keep=Last(1)) as manager:
        manager.prune()


def _prepare_leftovers(layout: str, folder: Path) -> None:
    """A run with a temporary, as a crash leaves it."""
    _prepare_run(2, layout, folder)
    run = RunOnDisk(folder / "runs" / "7", FixedNames())
    Path(run.path_of(0)).rename(run.temporary_of(run.names.name(0)))


def _sweep(folder: Path) -> None:
    with _manager(folder) as manager:
        manager.gc()


def _rewrites() -> Iterator[Operation]:
    for layout in LAYOUTS:
        old = partial(save, OLD, layout=layout, schema=("model", "1"))
        yield _replacing(f"migrate in place {layout}", old, partial(_migrate, to=PATH, overwrite=True), "moved")
        yield _replacing(f"upgrade in place {layout}", old, _upgrade, OLD)
    old = partial(save, OLD, layout="loose", schema=("model", "1"))
    moved_too = {PATH: OLD, "moved.ckpt": "moved"}
    yield Operation("migrate by links", old, partial(_migrate, to="moved.ckpt"), ({PATH: OLD}, moved_too), (moved_too,))
    copied = partial(_migrate, to=PATH, overwrite=True, verify=True)
    yield _replacing("migrate in place loose, copied", old, copied, "moved")
    flat = partial(save, "flat")
    for name in ("model.npz", "model.safetensors"):
        before, done = {PATH: "flat", name: "before"}, {PATH: "flat", name: "after"}
        from_old = partial(_prepare_foreign, name)
        convert = partial(_convert, PATH, name, overwrite=True)
        yield Operation(f"convert to {name}, replacing", from_old, convert, (before, done), (done,))
        done = {PATH: "flat", name: "after"}
        yield Operation(f"convert to {name}", flat, partial(_convert, PATH, name), ({PATH: "flat"}, done), (done,))
    for layout in LAYOUTS:
        convert = partial(_convert, "model.npz", PATH, layout=layout)
        before, done = {"model.npz": "before"}, {"model.npz": "before", PATH: "flat"}
        yield Operation(f"convert from .npz {layout}", _prepare_npz, convert, (before, done), (done,))
    yield from _conversions_to_folders()


def _conversions_to_folders() -> Iterator[Operation]:
    """Weights in one file or in several, into a new folder, and into one that has a configuration and other weights."""
    done = {PATH: "flat", WEIGHTS: "flat"}
    for name, size in SIZES.items():
        new = partial(_convert_to_folder, PATH, size=size)
        yield Operation(f"convert to a folder, {name}", partial(save, "flat"), new, ({PATH: "flat"}, done), (done,))
        for before, old_size in SIZES.items():
            old = partial(_prepare_folder, old_size)
            either = ({PATH: "flat", WEIGHTS: "older"}, done)
            yield Operation(f"convert to a folder, {name} for {before}", old, new, either, (done,))
        into = partial(new, overwrite=False)
        nothing_whole = ({PATH: "flat", WEIGHTS: code} for code in ("unknown-format", "ambiguous-source", "lossy"))
        states = (*nothing_whole, done)
        yield Operation(f"convert into a folder, {name}", _prepare_configuration, into, states, (done,))


TREES["flat"] = {"x": np.arange(400.0), "y": np.arange(7)}
TREES["older"] = {"x": np.zeros(90), "z": np.arange(5)}


def _migrate(folder: Path, *, to: str, **options: Any) -> None:
    ckptfmt.migrate(folder / PATH, folder / to, MIGRATION, schema="2", **options)


def _upgrade(folder: Path) -> None:
    ckptfmt.upgrade(folder / PATH, folder / PATH, overwrite=True)


def _convert(source: str, target: str, folder: Path, **options: Any) -> None:
    ckptfmt.convert(folder / source, folder / target, **options)


def _prepare_foreign(name: str, folder: Path) -> None:
    """A file of another format, and the checkpoint that is to replace it."""
    save("older", folder, path="older.ckpt")
    _convert("older.ckpt", name, folder)
    (folder / "older.ckpt").unlink()
    save("flat", folder)


WEIGHTS = "weights"  # a folder
SIZES: dict[str, int | str] = {"one file": "1MB", "two files": 720}


def _convert_to_folder(source: str, folder: Path, *, size: int | str, overwrite: bool = True) -> None:
    _convert(source, WEIGHTS, folder, target_format="safetensors", max_shard_size=size, overwrite=overwrite)


def _prepare_folder(size: int | str, folder: Path) -> None:
    save("older", folder, path="older.ckpt")
    _convert_to_folder("older.ckpt", folder, size=size)
    (folder / "older.ckpt").unlink()
    (folder / WEIGHTS / "config.json").write_text("{}")
    save("flat", folder)


def _prepare_configuration(folder: Path) -> None:
    (folder / WEIGHTS).mkdir()
    (folder / WEIGHTS / "config.json").write_text("{}")
    save("flat", folder)


def _prepare_npz(folder: Path) -> None:
    np.savez(folder / "model.npz", **TREES["flat"])


BASE, PATCH, FIRST = "base.ckpt", "tuned.patch.ckpt", "first.patch.ckpt"
_weights = np.random.default_rng(0).standard_normal((4, 1920))
TREES["base"] = {"label": "base", "large": _weights, "same": np.arange(700), "gone": np.zeros(3)}
TREES["first"] = {**TREES["base"], "label": "first", "large": np.where(_weights > 2, 0, _weights)}
TREES["tuned"] = {
    "label": "tuned",
    "large": np.where(_weights > 1, 0, _weights),
    "same": np.arange(700),
    "more": _weights,
}


def _patches() -> Iterator[Operation]:
    """A patch is read with its base, which lies beside it."""
    before: State = {BASE: "base", PATH: "tuned"}
    done = {**before, PATCH: "tuned"}
    yield Operation("patch", _prepare_pair, _patch, (before, done), (done,))
    older = {**before, PATCH: "first"}
    yield Operation("patch, replacing", _prepare_older_patch, partial(_patch, overwrite=True), (older, done), (done,))
    before = {BASE: "base", PATCH: "tuned"}
    for layout in LAYOUTS:
        done = {**before, PATH: "tuned"}
        apply = partial(_apply, layout=layout)
        yield Operation(f"apply {layout}", _prepare_patch, apply, (before, done), (done,))
        rolled = {BASE: "tuned", PATCH: "wrong-base"}
        in_place = partial(apply, target=BASE, overwrite=True)
        yield Operation(f"apply in place of the base {layout}", _prepare_patch, in_place, (before, rolled), (rolled,))
    before = {BASE: "base", FIRST: "first", PATCH: "tuned"}
    folded = partial(_fold, target="folded.patch.ckpt")
    done = {**before, "folded.patch.ckpt": "tuned"}
    yield Operation("fold", _prepare_chain, folded, (before, done), (done,))
    in_place = partial(_fold, target=PATCH, overwrite=True)
    yield Operation("fold in place of the last", _prepare_chain, in_place, (before,), (before,))


def _prepare_pair(folder: Path) -> None:
    save("base", folder, path=BASE)
    save("tuned", folder)


def _patch(folder: Path, **options: Any) -> None:
    ckptfmt.patch(folder / BASE, folder / PATH, folder / PATCH, **options)


def _prepare_patch(folder: Path) -> None:
    _prepare_pair(folder)
    _patch(folder)
    (folder / PATH).unlink()


def _prepare_older_patch(folder: Path) -> None:
    save("base", folder, path=BASE)
    save("first", folder)
    _patch(folder)
    save("tuned", folder, overwrite=True)


def _prepare_chain(folder: Path) -> None:
    save("base", folder, path=BASE)
    save("first", folder)
    ckptfmt.patch(folder / BASE, folder / PATH, folder / FIRST)
    save("tuned", folder, overwrite=True)
    ckptfmt.patch(folder / FIRST, folder / PATH, folder / PATCH, bases=folder / BASE)
    (folder / PATH).unlink()


def _apply(folder: Path, *, target: str = PATH, **options: Any) -> None:
    ckptfmt.apply(folder / BASE, folder / PATCH, folder / target, **options)


def _fold(folder: Path, *, target: str, **options: Any) -> None:
    ckptfmt.fold(folder / BASE, [folder / FIRST, folder / PATCH], folder / target, **options)


def _histories() -> Iterator[Operation]:
    """A run whose older steps become patches, and lose what they are read through in no state. Step 1 is one of 0."""
    old = {_path(0): "base", _path(1): "first", _path(2): "tuned"}
    for layout in LAYOUTS:
        whole, patched = partial(_prepare_steps, layout), partial(_prepare_history, layout)
        yield Operation(f"patch the steps of a run {layout}", whole, _patch_steps, (old,), (old,))
        new = {**old, _path(0): NEW}
        over = partial(_save_step, 0, layout=layout, label=NEW, overwrite=True)
        yield Operation(f"overwrite the base of a step {layout}", patched, over, (old, new), (new,))
        back: tuple[State, ...] = ({**new, _path(2): "tuned"}, {_path(0): NEW, _path(1): "first"}, {_path(0): NEW})
        rewind = partial(_save_step, 0, layout=layout, label=NEW, overwrite="later")
        yield Operation(f"overwrite the base of all later {layout}", patched, rewind, (old, *back), back[2:])
        pruned = [{name: old[name] for name in map(_path, kept)} for kept in ((0, 1, 2), (0, 2), (2,))]
        yield Operation(f"prune patches {layout}", patched, _prune, tuple(pruned), tuple(pruned[1:]))


def _prepare_steps(layout: str, folder: Path) -> None:
    for number, label in enumerate(("base", "first", "tuned")):
        _save_step(number, folder, layout=layout, label=label)


def _prepare_history(layout: str, folder: Path) -> None:
    _prepare_steps(layout, folder)
    _patch_steps(folder)


def _patch_steps(folder: Path) -> None:
    with warnings.catch_warnings(), _manager(folder, keep=[Last(1), Every(1)], history="patches") as manager:
        warnings.simplefilter("ignore", HistoryWarning)  # of a disk that fails
        manager.should_save(3)
        manager.wait()


def _collections() -> Iterator[Operation]:
    """What saves that died have left is removed, at once and whatever they were at."""
    for layout in LAYOUTS:
        old = partial(save, OLD, layout=layout)
        there = ({PATH: OLD},)
        yield Operation(
            f"collect a save that died {layout}", partial(_prepare_dead, layout), _collect, there, there, removes=True
        )
        saved = partial(_save_beside_collections, layout)
        yield Operation(f"collect all through a save {layout}", nothing, saved, ({}, {PATH: NEW}), ({PATH: NEW},))
        yield _replacing(f"collect all through a replacement {layout}", old, partial(saved, overwrite=True))
    pair: State = {BASE: "base", PATH: "tuned"}
    yield Operation("collect a patch that died", _prepare_dead_patch, _collect, (pair,), (pair,), removes=True)
    done = {**pair, PATCH: "tuned"}
    yield Operation("collect all through a patch", _prepare_pair, _patch_beside_collections, (pair, done), (done,))


def _collect(folder: Path) -> None:
    ckptfmt.gc(folder, delete=True, grace=0)


def _prepare_dead(layout: str, folder: Path) -> None:
    """A checkpoint, and the temporary of a save to its path, as a kill leaves it."""
    save(NEW, folder, layout=layout)
    (folder / PATH).rename(beside(str(folder / PATH)))
    save(OLD, folder, layout=layout)


def _prepare_dead_patch(folder: Path) -> None:
    """What waits to be saved, in a folder that is a temporary, as a kill leaves it."""
    _prepare_pair(folder)
    spool = Path(beside(str(folder / PATCH)))
    spool.mkdir()
    (spool / "chunks").write_bytes((folder / PATH).read_bytes())


class _Collecting(Disk):
    """Another disk, with a collection after each of some calls."""

    def __init__(self, disk: Disk, calls: tuple[str, ...], folder: Path) -> None:
        self._disk, self._calls, self._folder, self._is_busy = disk, calls, folder, False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        call = getattr(self._disk, name)
        if name not in self._calls or self._is_busy:
            return call

        def collected(*arguments: Any, **keys: Any) -> Any:
            result = call(*arguments, **keys)
            self._is_busy = True
            try:
                _collect(self._folder)
            finally:
                self._is_busy = False
            return result

        return collected


CHANGING = ("lock", "write", "flush", "flush_directory", "link", "rename_exclusive", "replace", "exchange")


def _save_beside_collections(layout: str, folder: Path, **options: Any) -> None:
    """Also what was replaced is removed so, before the save has made sure that the new one stays."""
    with using_disk(_Collecting(disks.current(), CHANGING, folder)):
        save(NEW, folder, layout=layout, **options)


def _patch_beside_collections(folder: Path) -> None:
    with using_disk(_Collecting(disks.current(), CHANGING, folder)):
        _patch(folder)
