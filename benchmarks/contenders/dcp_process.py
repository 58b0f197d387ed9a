"""torch.distributed.checkpoint with a process that saves in the background, and plans that are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.contenders.torch import TorchDcp


class TorchDcpProcess(TorchDcp):
    """Timed until the save is complete; its process and its plan are there from the run before."""

    name = "torch DCP process"
    note = (
        "`async_save` with `AsyncCheckpointerType.PROCESS` and `enable_plan_caching=True`, one gloo process, timed "
        "until it is complete. What the caller waits for is in results/manager.md."
    )
    omits = frozenset({"load", "small_load"})

    def _save(self, path: Path, tree: Any, *, sync: bool) -> None:
        import torch.distributed
        from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType, async_save

        distributed: Any = torch.distributed
        if not distributed.is_initialized():
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
            distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
        saving: Any = async_save(
            tree,
            storage_writer=FileSystemWriter(path, sync_files=sync),
            planner=DefaultSavePlanner(enable_plan_caching=True),
            async_checkpointer_type=AsyncCheckpointerType.PROCESS,
        )
        saving.result()
