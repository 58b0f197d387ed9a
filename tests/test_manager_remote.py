"""Runs whose directory is on a store: fsspec's memory, and a real S3 server on this machine."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3
from click.testing import CliRunner
from runs import damage, numbers, objects, place, store, tree
from stores import endpoint

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.manager import Best, CheckpointManager, Every, FallbackWarning, Last, run_on_store
from ckptfmt.testing import equal_trees

__all__ = ["endpoint", "store"]  # fixtures


@pytest.mark.parametrize("block", [True, False])
def test_a_run(store: dict[str, Any], block: bool) -> None:
    keep = [Last(2), Every(4), Best("loss")]
    with CheckpointManager(**store, keep=keep) as run:
        assert (run.latest(), run.best(), run.steps(), run.gc()) == (None, None, [], [])
        for step in range(8):
            assert run.save(step, tree(step), metrics={"loss": abs(step - 2.5)}, metadata={"n": step}, block=block)
        run.wait()
    again = CheckpointManager(**store, keep=keep)
    assert numbers(again) == numbers(run) == [0, 3, 4, 6, 7]
    assert objects(run) == ["kept.json", *(f"step-{step:010d}.ckpt" for step in (0, 3, 4, 6, 7))]
    latest = again.latest()
    assert latest is not None
    assert (latest.step, latest.metadata, again.best().step) == (7, {"n": 7}, 3)  # type: ignore[union-attr]
    engine, key = place(again, 7)
    assert latest.size == len(engine.tail(key, 1 << 20)[1])
    assert abs(latest.time - time.time()) < 600
    assert equal_trees(again.restore("best"), tree(3))
    assert equal_trees(again.restore(4, into=tree(0) | {"step": 4}), tree(4))
    with again.open() as checkpoint:
        assert checkpoint["w"].shape == (50,)


def test_order_and_overwriting(store: dict[str, Any]) -> None:
    run = CheckpointManager(**store)
    for step in (2, 4, 6):
        run.save(step, tree(step))
    with pytest.raises(ckptfmt.ExistsError):
        run.save(6, {})
    run.save(4, tree(40), overwrite=True)
    assert equal_trees(run.restore(4), tree(40))
    run.save(3, tree(30), overwrite="later")
    assert numbers(run) == [2, 3]
    assert equal_trees(run.restore(), tree(30))
    assert run.save(4, tree(4)), "the run goes on from there"


def test_what_is_read_stays(store: dict[str, Any]) -> None:
    run, reader = CheckpointManager(**store, keep=1), CheckpointManager(**store)
    run.save(1, tree(1))
    with reader.open(1) as checkpoint:
        run.save(2, tree(2))
        assert numbers(run) == [1, 2]
        assert run.plan().kept == {1: ("being read",), 2: ("newest", "last 1")}
        assert equal_trees(checkpoint.load(), tree(1))
        run.save(2, tree(20), overwrite=True)
    run.prune()
    assert numbers(run) == [2]
    assert objects(run) == ["kept.json", "step-0000000002.ckpt"], "no lease is left"


def test_a_run_goes_back_while_it_is_read(store: dict[str, Any]) -> None:
    """What is read vanishes from the listing at once; its bytes stay until then."""
    run = CheckpointManager(**store)
    for step in (1, 2, 3):
        run.save(step, tree(step))
    with CheckpointManager(**store).open(3) as checkpoint:
        run.save(1, tree(10), overwrite="later")
        assert numbers(run) == [1]
        assert equal_trees(checkpoint.load(), tree(3))
        with pytest.raises(ckptfmt.MissingError):
            run.restore(3)
    assert run.gc() == ["step-0000000003.ckpt"]
    assert [name for name in objects(run) if "0003" in name] == []


def test_a_lease_that_nobody_renews_ends(store: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = CheckpointManager(**store, keep=1)
    run.save(1, tree(1))
    run._run._put(f"{run._run._root}/.step-0000000001.ckpt.0123456789ab.ckptfmt-lease")  # type: ignore[attr-defined]
    run.save(2, tree(2))
    assert numbers(run) == [1, 2]
    monkeypatch.setattr(run_on_store, "LIFETIME", -10.0)
    run.prune()
    assert objects(run) == ["kept.json", "step-0000000002.ckpt"]


def test_a_deletion_that_died_is_finished(store: dict[str, Any]) -> None:
    """At each request that changes the store: the step is there whole, or not listed; a new one can take its number."""
    for layout in ("file", "loose") if "memory" in store["directory"] else ("file",):
        for call in range(20):
            run = CheckpointManager(**store, keep=1)
            run.save(2 * call, tree(1), overwrite="later")
            if layout == "loose":
                _as_directory(run, 2 * call)
            left = [call]

            def dying(real: Any, *arguments: Any, left: list[int] = left) -> Any:
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return real(*arguments)

            with pytest.MonkeyPatch.context() as patch:
                for name in ("_put", "_remove"):
                    real = getattr(run._run, name)
                    patch.setattr(run._run, name, lambda *a, _real=real, dying=dying: dying(_real, *a))
                try:
                    run.save(2 * call + 1, tree(2))
                    done = True
                except KeyboardInterrupt:
                    done = False
            again = CheckpointManager(**store, keep=1)
            assert numbers(again)[-1] == 2 * call + 1
            for step in again.steps():
                assert ckptfmt.verify(step.path, storage_options=again._run.options).ok
            again.prune()
            assert objects(again) == ["kept.json", f"step-{2 * call + 1:010d}.ckpt"]
            if done:
                break
        else:
            pytest.fail("a deletion takes too many requests")


def _as_directory(run: CheckpointManager, step: int) -> None:
    """Put a checkpoint in layout `loose` in the place of a file; such are listed and deleted like others."""
    import tempfile

    fs, path = fsspec.core.url_to_fs(run._run.path_of(step))
    fs.rm_file(path)
    with tempfile.TemporaryDirectory() as folder:
        ckptfmt.save(f"{folder}/one", tree(1), layout="loose", durable=False)
        for file in Path(folder, "one").rglob("*"):
            if file.is_file():
                fs.pipe_file(f"{path}/{file.relative_to(Path(folder, 'one')).as_posix()}", file.read_bytes())
    assert numbers(run)[-1] == step


def test_a_number_that_was_being_deleted_is_used_again(store: dict[str, Any]) -> None:
    run = CheckpointManager(**store)
    run.save(1, tree(1))
    run._run._put(run._run._tombstone("step-0000000001.ckpt"))  # type: ignore[attr-defined]
    assert numbers(run) == []
    run.save(1, tree(10))
    assert equal_trees(run.restore(1), tree(10))


def test_only_what_is_committed_is_listed(store: dict[str, Any]) -> None:
    run = CheckpointManager(**store)
    run.save(1, tree(1))
    engine, key = place(run, 1)
    whole = engine.tail(key, 1 << 20)[1]
    engine.put(key.replace("01.ckpt", "02.ckpt"), whole[:-1], exclusive=False)
    engine.put(key.replace("01.ckpt", "03.ckpt"), b"", exclusive=False)
    engine.put(key.replace("01.ckpt", "04.ckpt") + "/manifest.msgpack", b"", exclusive=False)
    with pytest.warns(FallbackWarning, match="no commit record") as told:
        assert numbers(run) == [1]
    assert len(told) == 2, "what has no COMMIT may be a save that goes on"
    assert [damaged.step for damaged in run.damaged()] == [2, 3]
    latest = run.latest()
    assert latest is not None
    assert latest.step == 1


def test_what_was_seen_is_not_fetched_again(store: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = CheckpointManager(**store)
    for step in range(20):
        run.save(step, tree(step))
    again = CheckpointManager(**store)
    engine, fetched = again._run._engine, []  # type: ignore[attr-defined]
    real, lock = engine.tail, threading.Lock()

    def tail(key: str, length: int) -> Any:
        with lock:
            fetched.append(key)
        return real(key, length)

    monkeypatch.setattr(engine, "tail", tail)
    assert again.latest() is not None
    assert len(fetched) == 1, "finding the latest reads the end of one"
    assert numbers(again) == list(range(20))
    assert len(fetched) == 20
    assert numbers(again) == list(range(20))
    assert len(fetched) == 20, "listing again reads nothing"


def test_walking_back_to_what_is_whole(store: dict[str, Any]) -> None:
    run = CheckpointManager(**store)
    for step in (1, 2):
        run.save(step, tree(step))
    damage(run, 2)
    with pytest.warns(FallbackWarning, match="going back to step 1"):
        assert equal_trees(run.restore(fallback=True), tree(1))
    assert numbers(run) == [1]
    assert run.save(2, tree(20)), "it takes the place of the damaged one, as nothing can be renamed on a store"
    assert numbers(run) == numbers(CheckpointManager(**store)) == [1, 2]
    assert equal_trees(run.restore(fallback=True), tree(20))


def test_a_store_that_may_only_be_read(store: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = CheckpointManager(**store)
    run.save(1, tree(1))

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError("denied")

    reader = CheckpointManager(**store)
    monkeypatch.setattr(reader._run._engine, "put", denied)  # type: ignore[attr-defined]
    assert equal_trees(reader.restore(), tree(1))


def test_a_store_that_cannot_be_reached() -> None:
    options = {"endpoint_url": "http://127.0.0.1:9", "key": "x", "secret": "x", "client_kwargs": {"region_name": "x"}}
    options["config_kwargs"] = {"retries": {"max_attempts": 0}, "connect_timeout": 1}  # type: ignore[assignment]
    run = CheckpointManager("s3://bucket/run", storage_options=options)
    with pytest.raises(ckptfmt.StorageError):
        run.latest()


def test_the_table(store: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = CheckpointManager(**store, keep=1)
    run.save(5, tree(5), metrics={"loss": 0.5})
    if "storage_options" in store:
        s3.environment(
            store["storage_options"].get("endpoint_url") or store["storage_options"]["endpoint"], monkeypatch
        )
    result = CliRunner().invoke(cli, ["ls", store["directory"]])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split()[0] == "step-0000000005.ckpt"
    assert result.stdout.splitlines()[1].endswith("loss=0.5  newest, last 1")


@pytest.mark.parametrize("options", [{"storage_options": {"key": "x"}}, {"directory": "nonesuch://a/b"}])
def test_options_are_checked(tmp_path: Path, options: Any) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        CheckpointManager(**{"directory": tmp_path} | options)
    assert caught.value.code == "bad-option"
