"""What programs do with the adapters, and the types of what they get. Checked, never run."""

from pathlib import Path
from typing import Any, assert_type

import ckptfmt_jax
import ckptfmt_numpy
import ckptfmt_torch

import ckptfmt
from ckptfmt.manager import CheckpointManager
from ckptfmt.testing import assert_same_tree, equal_trees, first_difference


def of_torch(path: Path, module: Any, optimizer: Any) -> None:
    assert_type(ckptfmt_torch.save(path, {"model": module, "optimizer": optimizer}, overwrite=True), ckptfmt.SaveReport)
    ckptfmt_torch.load(path, into={"model": module, "optimizer": optimizer}, device="cuda:0", strict=False)
    ckptfmt_torch.load(path, map_location="cpu", weights_only=True, select="model/**")
    report = ckptfmt_torch.load_into(path, module, prefix="model", strip_prefix="module.", mmap=True, cast=True)
    assert_type(report, ckptfmt.MatchReport)
    with ckptfmt_torch.open(path, device="cpu", schema="2", migrations=["up.json"]) as checkpoint:
        assert_type(checkpoint, ckptfmt.Checkpoint)
    with CheckpointManager("run", keep=3) as manager:
        manager.restore(load=ckptfmt_torch.load, into={"model": module}, map_location="cpu", weights_only=True)


def of_jax(path: Path, params: Any, shardings: Any) -> None:
    assert_type(ckptfmt_jax.save(path, params, layout="packed", coordinator=None), ckptfmt.SaveReport)
    ckptfmt_jax.load(path, params, sharding=shardings, cast=True)
    ckptfmt_jax.load(path, like=params, strip_prefix="params/")
    with ckptfmt_jax.open(path, verify=False) as checkpoint:
        print(checkpoint["w"][:2])
    with CheckpointManager("run") as manager:
        manager.restore("latest", load=ckptfmt_jax.load, like=params, sharding=shardings)


def of_any(path: Path) -> None:
    tree: Any = ckptfmt.load(path, framework=ckptfmt_numpy.ADAPTER)
    assert_type(equal_trees(tree, tree), bool)
    print(first_difference(tree, tree))
    assert_same_tree(tree, tree)
