"""A checkpoint of megatron-core in its form `torch_dist`, as `python tests/data/make_megatron.py` writes it beside it.

Written by two processes on gloo, with megatron-core 0.16.1 and torch 2.13.0 on Python 3.11.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

WORLD = 2
NAME = "megatron"


def save(rank: int) -> None:
    import torch
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing import ShardedTensor
    from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensorFactory

    torch.cuda.current_device = lambda: "cpu"  # which Megatron asks on any machine
    torch.cuda.synchronize = lambda *_, **__: None
    torch.distributed.init_process_group("gloo", rank=rank, world_size=WORLD)

    def halves(key: str, tensor: Any, replica: Any, _: Any) -> list[Any]:
        """As those of SwiGLU, which lie apart in the whole."""
        return [
            ShardedTensor.from_rank_offsets(
                key, half.contiguous(), (0, rank + i * WORLD, 2 * WORLD), replica_id=replica
            )
            for i, half in enumerate(tensor.chunk(2, 0))
        ]

    part = ShardedTensor.from_rank_offsets
    rows = torch.arange(24.0).reshape(4, 6).chunk(WORLD, 0)[rank].clone()
    state = {
        "rows": part("model.rows", rows, (0, rank, WORLD)),
        "same": part("model.same", torch.ones(3, dtype=torch.bfloat16), replica_id=rank),
        "layer": part("model.layers.w", torch.full((2,), float(rank)), (0, rank, WORLD), prepend_axis_num=1),
        "extra": ShardedObject("model.extra_state", {"a": rank}, (WORLD,), (rank,)),
        "fc1": ShardedTensorFactory("model.fc1", torch.arange(8.0).reshape(4, 2) + 100 * rank, halves, torch.cat),
        "iteration": 7,
        "args": {"hidden": 4},
        "optimizer": {"param_groups": [{"lr": 0.1, "params": [0]}]},
        "rng": [torch.arange(3)],
    }
    dist_checkpointing.save(state, NAME)
    torch.distributed.barrier()
    os._exit(0)


def main() -> None:
    folder = Path(__file__).parent / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29821"}
    command = [sys.executable, "-W", "ignore", os.path.abspath(__file__)]
    ranks = [subprocess.Popen([*command, str(rank)], cwd=folder.parent) for rank in range(WORLD)]
    assert [rank.wait() for rank in ranks] == [0] * WORLD


if __name__ == "__main__":
    save(int(sys.argv[1])) if sys.argv[1:] else main()
