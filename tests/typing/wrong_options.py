"""Options that are misspelt, or those of another call: each line with a comment is an error that names it."""

from typing import Any, Unpack

import ckptfmt_jax
import ckptfmt_torch

import ckptfmt
from ckptfmt import LoadOptions
from ckptfmt.manager import Background, Best, CheckpointManager, FlaxCheckpointManager, Schedule, open_run


def restore(name: str, **options: Unpack[LoadOptions]) -> Any:
    return ckptfmt.load(name, **options)


tree = {"step": 1}
ckptfmt.save("a.ckpt", tree, compresion="zstd")  # wrong: compresion
ckptfmt.save("a.ckpt", tree, into={})  # wrong: into
ckptfmt.load("a.ckpt", selct="model/**")  # wrong: selct
ckptfmt.load("a.ckpt", overwrite=True)  # wrong: overwrite
ckptfmt.load("a.ckpt", device="cpu")  # wrong: device
ckptfmt.open("a.ckpt", select="model/**")  # wrong: select
ckptfmt.check(tree, digest="sha256")  # wrong: digest
ckptfmt.verify("a.ckpt", grace=3)  # wrong: grace
ckptfmt.repair("a.ckpt", "b.ckpt", fil=0)  # wrong: fil
ckptfmt.migrate("a.ckpt", "b.ckpt", schema="2", select="model/**")  # wrong: select
ckptfmt.upgrade("a.ckpt", "b.ckpt", overwite=True)  # wrong: overwite
ckptfmt.convert("a.ckpt", "b.npz", target_fromat="npz")  # wrong: target_fromat
ckptfmt.convert_each("a", "b", into={})  # wrong: into
ckptfmt.diff("a.ckpt", "b.ckpt", select="model/**")  # wrong: select
ckptfmt.gc("a", graec=3)  # wrong: graec
ckptfmt.prune("a", 3, dry_run=True)  # wrong: dry_run
ckptfmt.stats("a.ckpt", selct="model/**")  # wrong: selct
ckptfmt.verify_folder("a", delete=True)  # wrong: delete
ckptfmt.Limits(manifst=3)  # wrong: manifst
with ckptfmt.Checkpoint("a.ckpt", prefx="model") as checkpoint:  # wrong: prefx
    checkpoint.load(schema="2")  # wrong: schema
    checkpoint.match(tree, strict=False)  # wrong: strict
with CheckpointManager("run", max_to_keep=3) as manager:  # wrong: max_to_keep
    manager.save(1, tree, metric={"loss": 1.0})  # wrong: metric
    manager.restore(sharding=None, devices="cpu")  # wrong: devices
    manager.save(2, tree, layout="loose")  # wrong: layout
FlaxCheckpointManager("run", schedul=3)  # wrong: schedul
open_run("run", keep=3)  # wrong: keep
Background(max_inflight=2)  # wrong: max_inflight
Schedule(step=2)  # wrong: step
Best("loss", k=2)  # wrong: k
ckptfmt_torch.load("a.ckpt", sharding=None)  # wrong: sharding
ckptfmt_torch.open("a.ckpt", map_location="cpu")  # wrong: map_location
ckptfmt_jax.load("a.ckpt", device="cpu")  # wrong: device
restore("a.ckpt", prefixx="model")  # wrong: prefixx
