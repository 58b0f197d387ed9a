"""What programs do with checkpoints, and the types of what they get. Checked, never run."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, assert_type

import numpy as np

import ckptfmt
from ckptfmt import Checkpoint, Schema, Tensor


class Pair(NamedTuple):
    mean: float
    scale: float


ckptfmt.register(Pair)


def saving(path: Path, tree: dict[str, Any]) -> None:
    def same(checkpoint: Checkpoint) -> None:
        assert len(checkpoint) == 1

    report = ckptfmt.save(path, tree, overwrite=True, compression="zstd", metadata={"step": 3}, check=same)
    assert_type(report, ckptfmt.SaveReport)
    ckptfmt.save("plain.ckpt", np.arange(3), layout="packed", digest="sha256", durable=False, skip=["tmp/**"])
    ckptfmt.save("rules.ckpt", tree, compression={"model/**": {"name": "zstd", "level": 3}, "**": None})
    ckptfmt.save("s3://bucket/a.ckpt", tree, storage_options={"anon": True}, schema=("gpt", "2"), extra={"run": 7})
    with ckptfmt.progress_bar("saving") as bar:
        ckptfmt.save(path, tree, progress=bar, schema=Schema("gpt", "2"), before_commit=lambda: None)
    with ckptfmt.FileCoordinator(path, rank=0, size=1, timeout=10) as coordinator:
        ckptfmt.save(path, tree, coordinator=coordinator)
    checked = ckptfmt.check(tree, metadata={"step": 3}, skip="tmp/**")
    assert_type(checked.ok, bool)
    assert_type([refusal.advice for refusal in checked.refused], list[str])


def loading(path: str | os.PathLike[str]) -> None:
    tree: dict[str, Any] = ckptfmt.load(path)
    ckptfmt.load(path, into=tree, strict=False, on_match=lambda report: print(report.missing, report.unexpected))
    ckptfmt.load(path, like=tree, cast=True, framework="torch", prefix=("model", 0), strip_prefix=["module.", "net."])
    ckptfmt.load(path, select=["model/**", "step"], mmap=True, verify=True, limits=ckptfmt.Limits(manifest=1 << 20))
    ckptfmt.load(path, schema="2", migrations=["up.json"], source_schema=("gpt", "1"), down=True, lossy=True)
    ckptfmt.load(path, progress=lambda done, total: print(done, total), max_bytes_in_flight=1 << 26, follow_links=True)


def reading(path: Path) -> None:
    with ckptfmt.open(path, verify=False) as checkpoint:
        assert_type(checkpoint, Checkpoint)
        assert_type(checkpoint.path, str)
        assert_type(checkpoint.format, tuple[int, int])
        assert_type(checkpoint.schema, Schema | None)
        assert_type(checkpoint.provenance, list[dict[str, Any]])
        assert_type(checkpoint.plan, ckptfmt.MigrationPlan | None)
        assert_type(checkpoint.tags, Mapping[tuple[str | int, ...], Sequence[tuple[str, Any]]])
        assert_type(len(checkpoint), int)
        for name in checkpoint:
            assert_type(name, str | tuple[str | int, ...])
            print(checkpoint[name], checkpoint.get(name), name in checkpoint)
        for name, tensor in checkpoint.items():
            assert_type(tensor.shape, tuple[int, ...])
            assert_type(tensor.ndim, int)
            print(name, tensor.dtype, tensor.nbytes, tensor[:2], np.asarray(tensor), tensor.read())
            if isinstance(tensor, Tensor):
                assert_type(tensor.codec, str)
                assert_type(tensor.stored_bytes, int)
                assert_type(tensor.dtype, np.dtype[Any])
        for tensor in checkpoint.values():
            print(tensor.shape)
        row: Any = checkpoint.read("model/wte", region=(slice(0, 2), slice(0, 8)))
        checkpoint.read(("model", 0), np.empty(3))
        tree: dict[str, Any] = checkpoint.load(select="model/**", framework="jax")
        assert_type(checkpoint.match({"w": row}, cast=True), ckptfmt.MatchReport)
        assert_type(checkpoint.verify(resume="mark"), ckptfmt.VerifyReport)
        print(checkpoint.zarr, checkpoint.typed_zarr, tree)
    Checkpoint(path, schema=("gpt", "2"), migrations=ckptfmt.MigrationSet(["up.json"]), framework="torch").close()


def keeping(path: Path, other: Path) -> None:
    report = ckptfmt.verify(path, limits=ckptfmt.Limits(expansion=1 << 30))
    assert_type(report.ok, bool)
    assert_type([damage.offset for damage in report.damage], list[int | None])
    folder = ckptfmt.verify_folder(path, recursive=True)
    assert_type(folder.reports, tuple[ckptfmt.VerifyReport, ...])
    repaired = ckptfmt.repair(path, other, fill=0.0, uncommitted=True, overwrite=True)
    assert_type(repaired.lost, tuple[ckptfmt.Lost, ...])
    assert_type(ckptfmt.gc(path, delete=True, grace=3600).bytes, int)
    assert_type(ckptfmt.stats(path, select="model/**").tensors, tuple[ckptfmt.TensorStats, ...])


def changing(path: Path, other: Path) -> None:
    one = ckptfmt.convert(
        path, other, target_format="safetensors", allow_loss={"metadata"}, select="model/**", root="model"
    )
    assert_type(one, ckptfmt.ConvertReport)
    for outcome in ckptfmt.convert_each(path, other, executor=ThreadPoolExecutor(2), compression="zstd", nest=True):
        assert_type(outcome.report, ckptfmt.ConvertReport | None)
        assert_type(outcome.error, ckptfmt.CkptError | None)
    found = ckptfmt.diff(path, other, source_format="torch")
    assert_type(found.changed, tuple[ckptfmt.Change, ...])
    assert_type(found.source, str)
    migrated = ckptfmt.migrate(path, other, ["up.json"], schema="3", plan_only=True, parameters={"heads": 8})
    assert_type(migrated.saved, ckptfmt.SaveReport | None)
    upgraded = ckptfmt.upgrade(path, other, overwrite=True, durable=False)
    assert_type(upgraded.format, tuple[int, int])
    assert_type(upgraded.saved, ckptfmt.SaveReport)


def failing(path: Path) -> str:
    try:
        ckptfmt.load(path)
    except ckptfmt.MismatchError as error:
        return error.advice + error.hint
    except (ckptfmt.CorruptError, ckptfmt.MissingError) as error:
        assert_type(error.code, str)
        assert_type(error.path, str | None)
        assert_type(error.tensor, str | None)
    return ""
