"""Checkpoints of DeepSpeed, as `python tests/data/make_deepspeed.py` writes them beside it: ZeRO 1, 2 and 3 and a
universal checkpoint, each with what DeepSpeed itself puts together of it (`NAME.npz`: names of tensors, and those of
the optimizer behind a colon).

Written with deepspeed 0.19.8 and torch 2.13.0 on Python 3.11 (DS_BUILD_OPS=0 pip install deepspeed), processes on gloo.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "deepspeed"
# by name: the stage, the number of processes, and what the configuration has beside it
CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "zero1": (1, 2, {}),
    "zero1-bf16": (1, 2, {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}),
    "zero2": (2, 3, {"bf16": {"enabled": True}}),
    "zero3": (3, 2, {"bf16": {"enabled": True}, "zero_optimization": {"sub_group_size": 8}}),
}


def train(name: str, rank: int, port: str) -> None:
    stage, world, more = CASES[name]
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DS_ACCELERATOR": "cpu"}
    import deepspeed
    import torch

    deepspeed.init_distributed("gloo")
    torch.manual_seed(7)
    net = torch.nn.Module()
    net.embed = torch.nn.Embedding(5, 3)
    net.body, net.norm = torch.nn.Linear(3, 7), torch.nn.LayerNorm(7)
    net.frozen = torch.nn.Linear(7, 3).requires_grad_(False)
    net.head = torch.nn.Linear(3, 5, bias=False)
    net.head.weight = net.embed.weight  # tied
    net.register_buffer("steps", torch.tensor([3, 4]))
    net.forward = lambda x: net.head(net.frozen(net.norm(net.body(net.embed(x)))))
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": 0.1},
        {"params": [parameter for parameter in trained if parameter.ndim == 1], "weight_decay": 0.0},
    ]
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **more,
    }
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
    config["zero_optimization"] = {**zero, **more.get("zero_optimization", {})}
    engine, *_ = deepspeed.initialize(model=net, optimizer=torch.optim.AdamW(groups, lr=0.01), config=config)
    for _ in range(2):
        loss = engine(torch.arange(4).reshape(2, 2)[rank % 2]).float().pow(2).mean()
        engine.backward(loss)
        engine.step()
    engine.save_checkpoint(str(HERE / name), client_state={"epoch": 3})
    torch.distributed.barrier()
    os._exit(0)


def expected(name: str) -> None:
    """What DeepSpeed makes of a checkpoint: the weights, of which its zero_to_fp32 refuses those of BF16_Optimizer, and
    the states of the optimizer by way of a universal one."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import numpy as np
    import torch
    from deepspeed.checkpoint import ds_to_universal
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    found = {} if name == "zero1-bf16" else get_fp32_state_dict_from_zero_checkpoint(str(HERE / name))
    found = {key: value.detach() for key, value in found.items()}
    arrays = {key: (value.float() if value.is_floating_point() else value).numpy() for key, value in found.items()}
    universal = HERE / f"{name}-universal"
    arguments = ["--input_folder", f"{HERE}/{name}/global_step2", "--output_folder", f"{universal}/global_step2"]
    arguments += ["--num_extract_workers", "1", "--num_merge_workers", "1", "--inject_missing_state"]
    subprocess.run([sys.executable, ds_to_universal.__file__, *arguments], check=True)
    for file in universal.glob("*/zero/*/*.pt"):
        state = torch.load(file, weights_only=False)
        array = (state["param"] if isinstance(state, dict) else state).detach().numpy()
        if file.stem != "fp32":
            arrays[f"{file.parent.name}:{file.stem}"] = array
        elif name == "zero1-bf16" and file.parent.name != "head.weight":  # of which this one is not the shared weight
            arrays[file.parent.name] = array
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    for script in (HERE / name).glob("*.py"):
        script.unlink()
    if name in ("zero1", "zero1-bf16"):  # one of each kind is enough
        shutil.rmtree(universal)


def main() -> None:
    for number, name in enumerate(CASES):
        shutil.rmtree(HERE / name, ignore_errors=True)
        command = [sys.executable, "-W", "ignore", __file__, name]
        ranks = [subprocess.Popen([*command, str(rank), str(29700 + number)]) for rank in range(CASES[name][1])]
        assert [rank.wait() for rank in ranks] == [0] * len(ranks)
        subprocess.run([*command, "expected"], check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [name, "expected"]:
            expected(name)
        case [name, rank, port]:
            train(name, int(rank), port)
        case _:
            main()
