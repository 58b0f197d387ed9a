"""Values of the wrong types: each line with a comment is an error that names what is wrong."""

import ckptfmt
from ckptfmt import LoadOptions
from ckptfmt.manager import Background, Best, CheckpointManager, Schedule

tree = {"step": 1}
ckptfmt.save(7, tree)  # wrong: PathLike
ckptfmt.save("a.ckpt", tree, durable="no")  # wrong: durable
ckptfmt.save("a.ckpt", tree, compression=3)  # wrong: compression
ckptfmt.save("a.ckpt", tree, check=lambda: None)  # wrong: check
ckptfmt.load("a.ckpt", select=3)  # wrong: select
ckptfmt.load("a.ckpt", strict="yes")  # wrong: strict
ckptfmt.load("a.ckpt", limits=3)  # wrong: limits
ckptfmt.open("a.ckpt", schema=2)  # wrong: schema
ckptfmt.open("a.ckpt", framework=3)  # wrong: framework
ckptfmt.open("a.ckpt", "rb")  # wrong: positional
ckptfmt.migrate("a.ckpt", "b.ckpt")  # wrong: schema
ckptfmt.convert("a.ckpt", "b.npz", max_expansion="much")  # wrong: max_expansion
ckptfmt.repair("a.ckpt", "b.ckpt", fill="zeros")  # wrong: fill
CheckpointManager("run", keep="all")  # wrong: keep
CheckpointManager("run", background=3)  # wrong: background
CheckpointManager("run").save("1", tree)  # wrong: SupportsIndex
CheckpointManager("run").restore("newest")  # wrong: newest
CheckpointManager("run").save(1, tree, overwrite="all")  # wrong: overwrite
Background(when_full="drop")  # wrong: when_full
Background(by="fork")  # wrong: by
CheckpointManager("run", background="fork")  # wrong: background
Best("loss", mode="least")  # wrong: mode
Schedule(seconds="60")  # wrong: seconds
options: LoadOptions = {"select": "model/**", "overwrite": True}  # wrong: overwrite
with ckptfmt.open("a.ckpt") as checkpoint:
    print(checkpoint.bytes_red)  # wrong: bytes_red
    for tensor in checkpoint.values():
        print(tensor.codec)  # wrong: codec
    print(checkpoint.verify().damaged)  # wrong: damaged
