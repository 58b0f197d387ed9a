"""Pruning of any folder: what no policy keeps goes, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from damage import LAYOUTS
from peers import peer

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.manager import Best, CheckpointManager, Every, Last, Where, pruning
from ckptfmt.storage import leases
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import using_disk

torch = peer("torch")

LOSSES = [9.0, 1.0, 5.0, 4.0, 3.0, 2.5]


@pytest.fixture(params=LAYOUTS)
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "checkpoints"
    path.mkdir()
    for epoch, loss in enumerate(LOSSES):
        save(path / f"epoch_{epoch}.ckpt", layout=request.param, metadata={"loss": loss, "acc": np.float32(-loss)})
    return path


def save(path: Path, **options: Any) -> None:
    ckptfmt.save(path, {"w": np.zeros(10)}, durable=False, **options)


def names(found: tuple[pruning.Pruned, ...]) -> list[str]:
    return [Path(one.path).name.removesuffix(".ckpt") for one in found]


def there(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["prune", *map(str, args)])


def test_nothing_goes_unasked(folder: Path) -> None:
    before = there(folder)
    report = ckptfmt.prune(folder, [Last(2), Best("loss")])
    assert names(report.found) == ["epoch_0", "epoch_2", "epoch_3"]
    assert names(report.kept) == ["epoch_1", "epoch_4", "epoch_5"]
    assert [one.why for one in report.kept] == ["best 1 by loss (min)", "last 2", "newest, last 2"]
    assert {one.why for one in report.found} == {"kept by none of: last 2, best 1 by loss (min)"}
    assert report.bytes == sum(one.bytes for one in report.found) > 0
    assert not any(one.removed for one in report.found)
    assert there(folder) == before


def test_what_no_policy_keeps_goes(folder: Path) -> None:
    report = ckptfmt.prune(folder, [Every(3), Best("acc", mode="max")], delete=True)
    assert names(report.found) == ["epoch_2", "epoch_4"]
    assert all(one.removed for one in report.found)
    assert there(folder) == [f"epoch_{number}.ckpt" for number in (0, 1, 3, 5)]
    assert ckptfmt.verify_folder(folder).ok
    assert ckptfmt.prune(folder, 1, delete=True).path == str(folder)
    assert there(folder) == ["epoch_5.ckpt"]
    assert ckptfmt.prune(folder, 1, delete=True).found == ()


def test_what_is_no_checkpoint_of_ours_stays(folder: Path) -> None:
    for name in ("notes.txt", "epoch_7.txt", "epoch_8.ckpt", ".hidden.ckpt"):
        (folder / name).write_bytes(b"text")
    torch.save({"w": torch.zeros(3)}, folder / "epoch_0.pt")
    save(folder / "best.ckpt")
    (folder / "below").mkdir()
    save(folder / "below" / "epoch_0.ckpt")
    (folder / "latest").symlink_to("epoch_2.ckpt")
    (folder / "epoch_-1.ckpt").symlink_to("below/epoch_0.ckpt")
    torn = folder / "epoch_9.ckpt"
    torn.write_bytes(b"PK\3\4" + bytes(100))
    before = set(there(folder))
    report = ckptfmt.prune(folder, 1, delete=True)
    assert names(report.found) == ["epoch_0", "epoch_1", "epoch_3", "epoch_4"]
    assert before - set(there(folder)) == {f"epoch_{number}.ckpt" for number in (0, 1, 3, 4)}
    assert there(folder / "below") == ["epoch_0.ckpt"]
    why = {Path(one.path).name: one.why for one in report.kept}
    assert why["best.ckpt"] == "no step is known of it"
    assert why["epoch_0.pt"] == "of another format: torch"
    assert why["epoch_2.ckpt"] == "a link leads to it"
    assert why["epoch_8.ckpt"] == "damaged or not readable: not-a-checkpoint"
    assert why["epoch_5.ckpt"] == "newest, last 1"


def test_what_is_damaged_is_not_the_newest(folder: Path) -> None:
    path = folder / "epoch_5.ckpt"
    place = path / "COMMIT" if path.is_dir() else path
    place.write_bytes(place.read_bytes()[:-3])
    report = ckptfmt.prune(folder, 1, delete=True)
    assert names(report.kept) == ["epoch_4", "epoch_5"]
    assert there(folder) == ["epoch_4.ckpt", "epoch_5.ckpt"]


def test_what_is_read_stays(folder: Path) -> None:
    with leases.lease(str(folder / "epoch_1.ckpt")):
        for delete in (False, True):
            report = ckptfmt.prune(folder, 1, delete=delete)
            assert {Path(one.path).name: one.why for one in report.kept}["epoch_1.ckpt"] == "being read"
    assert there(folder) == ["epoch_1.ckpt", "epoch_5.ckpt"]


def test_what_changed_meanwhile_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another save took the place of what was listed."""
    listed = pruning.listed

    def then_saved(path: str) -> Any:
        rows = listed(path)
        row = next(row for row in rows if row.step == 0)
        layout = "file" if os.path.isfile(row.path) else "packed"
        save(Path(row.path), layout=layout, overwrite=True, metadata={"loss": 0.0, "more": "x" * 1000})
        return rows

    monkeypatch.setattr(pruning, "listed", then_saved)
    report = ckptfmt.prune(folder, 1, delete=True)
    assert {Path(one.path).name: one.why for one in report.kept}["epoch_0.ckpt"] == "changed meanwhile"
    assert there(folder) == ["epoch_0.ckpt", "epoch_5.ckpt"]


def test_a_crash_leaves_nothing_that_looks_whole(folder: Path) -> None:
    """It has another name before anything of it goes."""

    class Crashes(Disk):
        def unlink(self, path: str) -> None:
            raise OSError(5, "crash")

        def remove_tree(self, path: str) -> None:
            raise OSError(5, "crash")

    with using_disk(Crashes()), pytest.raises(ckptfmt.StorageError):
        ckptfmt.prune(folder, 1, delete=True)
    assert [row.name for row in pruning.listed(str(folder))] == [f"epoch_{number}.ckpt" for number in range(1, 6)]
    assert ckptfmt.verify_folder(folder).ok
    assert len(ckptfmt.gc(folder, grace=0, delete=True).found) == 1


def test_a_run_of_a_manager(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep=None)
    for step, loss in enumerate(LOSSES):
        manager.save(step, {"w": np.zeros(3)}, metrics={"loss": loss})
    report = ckptfmt.prune(tmp_path, [Last(1), Best("loss", 2)], delete=True)
    assert [one.step for one in report.kept] == [1, 5]
    assert [step.step for step in manager.steps()] == [1, 5]


def test_any_policy(folder: Path) -> None:
    report = ckptfmt.prune(folder, Where(lambda step: step.metrics["loss"] < 3, "low"))
    assert names(report.kept) == ["epoch_1", "epoch_5"]
    assert report.kept[0].why == "low"


def test_what_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "x.ckpt", layout="packed")
    save(tmp_path / "y.ckpt")
    for path, code in (
        (tmp_path / "x.ckpt", "bad-option"),
        (tmp_path / "y.ckpt", "not-a-checkpoint"),
        (tmp_path / "none", "not-found"),
        ("s3://bucket/x", "bad-option"),
    ):
        with pytest.raises(ckptfmt.CkptError) as raised:
            ckptfmt.prune(path, 1, delete=True)
        assert raised.value.code == code
    for keep in ([], "last", 0):
        with pytest.raises(ckptfmt.InputError):
            ckptfmt.prune(tmp_path, keep, delete=True)  # type: ignore[arg-type]


# ---- the command


def test_the_table(folder: Path) -> None:
    result = run(folder, "--keep-last", 2, "--keep-best", "loss", "--keep-best", "acc:max:2", "--keep", "*_3.*")
    assert result.exit_code == 0
    head, *lines, total = result.stdout.splitlines()
    assert head.split() == ["name", "step", "time", "size", "metrics", "why"]
    words = [line.split() for line in lines]
    assert [(line[0], line[1]) for line in words] == [
        ("goes", "epoch_0.ckpt"),
        ("goes", "epoch_2.ckpt"),
        ("stays", "epoch_1.ckpt"),
        ("stays", "epoch_3.ckpt"),
        ("stays", "epoch_4.ckpt"),
        ("stays", "epoch_5.ckpt"),
    ]
    assert lines[2].endswith("best 1 by loss (min), best 2 by acc (max)")
    assert lines[3].endswith("called *_3.*")
    assert total.startswith(f"{folder}: 2 of 6 checkpoints, ")
    assert total.endswith("can be removed with --delete")
    assert len(there(folder)) == 6
    result = run(folder, "--keep-last", 2, "--delete")
    assert result.stdout.count("removed ") == 4
    assert result.stdout.splitlines()[-1].endswith(", removed")
    assert len(there(folder)) == 2


def test_the_object(folder: Path) -> None:
    found = json.loads(run(folder, "--keep-every", 2, "--json", "--delete").stdout)
    assert (found["path"], found["deleted"]) == (str(folder), True)
    assert [(one["step"], one["removed"]) for one in found["found"]] == [(1, True), (3, True)]
    assert [one["why"] for one in found["kept"]] == ["every 2", "every 2", "every 2", "newest"]
    assert set(found["kept"][0]) == {"path", "step", "time", "bytes", "metrics", "why", "removed"}
    assert found["kept"][0]["metrics"] == {"loss": 9.0, "acc": -9.0}


def test_by_time(folder: Path) -> None:
    for number in range(6):
        path = folder / f"epoch_{number}.ckpt"
        place = path / "COMMIT" if path.is_dir() else path
        os.utime(place, (1000 + 3600 * number,) * 2)
    assert names(ckptfmt.prune(folder, 1).kept) == ["epoch_5"]
    kept = json.loads(run(folder, "--keep-each", "2h", "--json").stdout)["kept"]
    assert [one["step"] for one in kept] == [0, 2, 4, 5]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "say what is to be kept"),
        (["--keep-best", "los"], "no checkpoint here has the metric 'los'; did you mean 'loss'?"),
        (["--keep-best", "f1"], "no checkpoint here has the metric 'f1'; there are loss, acc"),
        (["--keep-best", ""], "is not like loss"),
        (["--keep-last", "0"], "--keep-last"),
        (["--keep-each", "soon"], "'soon' is not like 30m"),
    ],
)
def test_calls_that_are_wrong(folder: Path, words: list[str], told: str) -> None:
    result = run(folder, *words, "--delete")
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(there(folder)) == 6
