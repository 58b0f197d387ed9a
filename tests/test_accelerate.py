"""FSDP and DeepSpeed by accelerate, on two ranks: `ckptfmt_torch.save` and `load` of what it prepares, beside its own
checkpoints, and what `convert` makes of those. accelerate takes its plugin for FSDP where there is an accelerator; that
it is there on a machine without one is set here, and all else is its own code."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import imported
from torch_ranks import launch, main

import ckptfmt

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

GATHERED = "stage3_gather_16bit_weights_on_model_save"
FSDP1 = "torch.distributed.fsdp.fully_sharded_data_parallel"


def ran(case: str, folder: Path) -> None:
    results = launch(__file__, case, 2, folder)
    assert [status for status, _ in results] == [0, 0], results


def same(found: Any, expected: Any) -> bool:
    return np.array_equal(found, expected) and found.dtype == expected.dtype


def test_a_run_in_fsdp_2_goes_on_exactly(tmp_path: Path) -> None:
    ran("fsdp2", tmp_path)
    assert ckptfmt.convert(tmp_path / "sharded", tmp_path / "found").source.endswith("pytorch_model_fsdp_0")
    own = ckptfmt.load(tmp_path / "own")
    names = list(own["model"])
    assert names[:2] == ["embed.weight", "blocks.0.count"]
    assert own["optimizer"]["state"][0]["exp_avg"].shape == own["model"]["embed.weight"].shape == (11, 7)
    # what accelerate wrote, in shards and whole
    for folder in ("sharded", "full"):
        model, optimizer = stored_by_accelerate(tmp_path / folder)
        assert all(same(model[name], own["model"][name]) for name in names)
        assert model.keys() == own["model"].keys()
        parameters = [name for name in names if "count" not in name]
        for number, name in enumerate(parameters):
            for state, array in own["optimizer"]["state"][number].items():
                assert same(np.asarray(optimizer["state"][name][state]), array), (name, state)
        assert optimizer["param_groups"][0]["lr"] == own["optimizer"]["param_groups"][0]["lr"]


def stored_by_accelerate(folder: Path) -> tuple[Any, Any]:
    if (folder / "optimizer_0").exists():
        model, optimizer = imported(folder / "pytorch_model_fsdp_0")[0], imported(folder / "optimizer_0")[0]
        return model["model"], optimizer["optimizer"]
    return imported(folder / "pytorch_model_fsdp.bin")[0], imported(folder / "optimizer.bin")[0]


def test_fsdp_1_goes_through_dcp_and_its_optimizer_is_refused(tmp_path: Path) -> None:
    ran("fsdp1", tmp_path)
    own, through = ckptfmt.load(tmp_path / "model"), ckptfmt.load(tmp_path / "dcp")
    assert own["model"].keys() == through["model"].keys()
    assert list(own["model"])[1] == "blocks.0.count", "the names are those of the model that is not wrapped"
    assert all(same(own["model"][name], array) for name, array in through["model"].items())
    model, optimizer = stored_by_accelerate(tmp_path / "sharded")
    assert all(same(own["model"][name], array) for name, array in model.items())
    state = through["optimizer"]["state"]
    assert all(same(optimizer["state"][name]["exp_avg"], array["exp_avg"]) for name, array in state.items())


@pytest.mark.parametrize("stage", [2, 3])
def test_what_deepspeed_partitions_is_refused_and_its_checkpoints_are_read(tmp_path: Path, stage: int) -> None:
    pytest.importorskip("deepspeed")
    ran(f"zero{stage}", tmp_path)
    weights, tree = ckptfmt.load(tmp_path / "weights"), imported(tmp_path / "saved" / "pytorch_model")[0]
    assert list(weights)[1] == "blocks.0.count"
    assert all(same(tree["module"][name], array) for name, array in weights.items())
    assert tree["module"].keys() == weights.keys()
    assert tree["optimizer"]["state"]["embed.weight"]["exp_avg"].shape == (11, 7)


# ---- what a rank does


def made(seed: int) -> tuple[Any, type]:
    """A model, and the class of its blocks."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = torch.nn.Linear(7, 5), torch.nn.Linear(5, 7)
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))

        def forward(self, x: Any) -> Any:
            self.count += 1
            return x + self.down(torch.relu(self.up(x)))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(11, 7)
            self.blocks = torch.nn.Sequential(Block(), Block())

        def forward(self, x: Any) -> Any:
            return self.blocks(self.embed(x))

    torch.manual_seed(seed)
    return Model(), Block


def prepared(version: int, kind: str, seed: int) -> tuple[Any, Any, Any]:
    """An Accelerator, a model that it has sharded, and its optimizer."""
    from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState, PartialState

    model, block = made(seed)
    AcceleratorState._reset_state(reset_partial_state=True)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=version,
        state_dict_type=kind,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["Block"],
        cpu_ram_efficient_loading=False,
    )
    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if version == 1:  # accelerate would name the device cpu:0, which torch takes for another
        from torch.distributed.fsdp import FullyShardedDataParallel
        from torch.distributed.fsdp.wrap import ModuleWrapPolicy

        wrap = {"auto_wrap_policy": ModuleWrapPolicy([block]), "use_orig_params": True}
        model = FullyShardedDataParallel(model, device_id=torch.device("cpu"), **wrap)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    return accelerator, model, optimizer


def stepped(run: tuple[Any, Any, Any], *steps: int) -> list[float]:
    """The losses of some steps."""
    accelerator, model, optimizer = run
    losses = []
    for step in steps:
        seed = torch.Generator().manual_seed(10 * step + accelerator.process_index)
        loss = model(torch.randint(0, 11, (4, 3), generator=seed)).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def launched(rank: int) -> None:
    """What `accelerate launch` says to a process."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")


def fsdp2(folder: Path, rank: int) -> None:
    import ckptfmt_torch

    launched(rank)
    run = prepared(2, "SHARDED_STATE_DICT", seed=1)
    accelerator, model, optimizer = run
    stepped(run, 0, 1)
    accelerator.save_state(folder / "sharded")
    ckptfmt_torch.save(folder / "own", {"model": model, "optimizer": optimizer, "step": 2}, durable=False)
    expected = stepped(run, 2, 3)
    again = prepared(2, "FULL_STATE_DICT", seed=2)
    found = ckptfmt_torch.load(folder / "own", into={"model": again[1], "optimizer": again[2], "step": 0})
    assert found["step"] == 2
    again[0].save_state(folder / "full")
    assert stepped(again, 2, 3) == expected
    ckptfmt_torch.load(folder / "own", into={"model": model, "optimizer": optimizer, "step": 0})  # over a state
    assert stepped(run, 2, 3) == expected


def fsdp1(folder: Path, rank: int) -> None:
    import ckptfmt_torch
    import torch.distributed.checkpoint as dcp
    from ckptfmt_torch.dcp import StorageReader, StorageWriter
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    launched(rank)
    run = prepared(1, "SHARDED_STATE_DICT", seed=1)
    accelerator, model, optimizer = run
    stepped(run, 0, 1)
    accelerator.save_state(folder / "sharded")
    ckptfmt_torch.save(folder / "model", {"model": model}, durable=False)
    for what in (optimizer, optimizer.optimizer):
        with pytest.raises(ckptfmt.InputError, match=r"get_state_dict\(model, optimizer\)"):
            ckptfmt_torch.save(folder / "refused", {"optimizer": what})
        with pytest.raises(ckptfmt.InputError, match="FSDP 1"):
            ckptfmt_torch.load(folder / "model", into={"optimizer": what}, strict=False)
    weights, states = get_state_dict(model, optimizer.optimizer)
    with pytest.raises(ckptfmt.InputError, match=r"ckptfmt_torch\.dcp"):
        ckptfmt_torch.save(folder / "refused", weights)
    state = {"model": weights, "optimizer": states}
    dcp.save(state, storage_writer=StorageWriter(folder / "dcp", durable=False))
    expected = stepped(run, 2, 3)
    ckptfmt_torch.load(folder / "model", into={"model": model})
    weights, states = get_state_dict(model, optimizer.optimizer)
    state = {"model": weights, "optimizer": states}
    dcp.load(state, storage_reader=StorageReader(folder / "dcp"))
    set_state_dict(model, optimizer.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    assert stepped(run, 2, 3) == expected
    assert not (folder / "refused").exists()


def zero(stage: int, folder: Path, rank: int) -> None:
    import ckptfmt_torch
    import deepspeed  # noqa: F401  # before accelerate looks for it
    from accelerate import Accelerator, DeepSpeedPlugin

    launched(rank)
    os.environ.update(ACCELERATE_USE_DEEPSPEED="true", DS_ACCELERATOR="cpu", LOCAL_SIZE="2")
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # which compiles for minutes
    settings = {"train_micro_batch_size_per_gpu": 4, "zero_allow_untested_optimizer": True}
    settings |= {"zero_optimization": {"stage": stage, GATHERED: True}, "zero_force_ds_cpu_optimizer": False}
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=settings))
    model, _ = made(seed=1)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    stepped((accelerator, model, optimizer), 0, 1)
    accelerator.save_state(folder / "saved")
    for what in (optimizer, *([model] if stage == 3 else [])):
        with pytest.raises(ckptfmt.InputError, match="DeepSpeed has partitioned"):
            ckptfmt_torch.save(folder / "refused", {"it": what})
    weights = accelerator.get_state_dict(model)
    if rank == 0:
        ckptfmt_torch.save(folder / "weights", weights, coordinator=None, durable=False)


CASES = {"fsdp2": fsdp2, "fsdp1": fsdp1, "zero2": partial(zero, 2), "zero3": partial(zero, 3)}
IMPORTED = ("torch.distributed.checkpoint", "torch.distributed.fsdp", FSDP1, "accelerate", "ckptfmt_torch.dcp")

if __name__ == "__main__":
    main(CASES, IMPORTED)
