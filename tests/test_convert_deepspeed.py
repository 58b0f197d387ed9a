"""Checkpoints of DeepSpeed: what DeepSpeed itself puts together of its partitions, and partitions that do not fit."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from conversions import imported
from peers import peer

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.checked import with_arrays
from ckptfmt.conversion.formats import torch_file
from ckptfmt.conversion.parts import joined, reshaped
from ckptfmt.conversion.source import is_tensor, walk
from ckptfmt.testing import assert_same_tree

torch = peer("torch")
DATA = Path(__file__).parent / "data/deepspeed"
PARTITIONED = ("zero1", "zero1-bf16", "zero2", "zero3")
UNIVERSAL = ("zero2-universal", "zero3-universal")
STATES = ("exp_avg", "exp_avg_sq")


def expected(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights, and states of the optimizer by parameter."""
    with np.load(DATA / f"{name.removesuffix('-universal')}.npz") as file:
        arrays = dict(file)
    weights = {key: array for key, array in arrays.items() if ":" not in key}
    names = {key.partition(":")[0] for key in arrays if ":" in key}
    return weights, {name: {state: arrays[f"{name}:{state}"] for state in STATES} for name in names}


def copied(name: str, to: Path) -> Path:
    return Path(shutil.copytree(DATA / name, to / name))


@pytest.mark.parametrize("name", [*PARTITIONED, *UNIVERSAL])
def test_it_is_what_deepspeed_puts_together(tmp_path: Path, name: str) -> None:
    tree, _ = imported(copied(name, tmp_path))
    weights, states = expected(name)
    assert set(tree["module"]) == {"embed.weight", "body.weight", "body.bias", "norm.weight", "norm.bias", "steps",
                                   "frozen.weight", "frozen.bias", "head.weight"}  # fmt: skip
    for key, array in weights.items():
        found = tree["module"][key]
        assert_same_tree({key: found.astype(array.dtype)}, {key: array})
        is_kept = key.startswith("frozen") or key == "steps"
        assert is_kept or found.dtype == np.float32
    assert tree["module"]["head.weight"] is tree["module"]["embed.weight"]
    assert set(tree["optimizer"]["state"]) == set(states)
    for key, state in states.items():
        for part, array in state.items():
            whole = array.reshape(weights[key].shape)  # DeepSpeed leaves that of ZeRO 3 flat
            assert_same_tree({part: tree["optimizer"]["state"][key][part]}, {part: whole})
        assert tree["optimizer"]["state"][key]["step"] == 2
    groups = tree["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [group["params"] for group in groups] == [
        ["embed.weight", "body.weight"],
        ["body.bias", "norm.weight", "norm.bias"],
    ]
    assert (tree["epoch"], tree["global_steps"], tree["ds_version"]) == (3, 2, "0.19.8")
    assert not tree.keys() & {"param_shapes", "shared_params", "buffer_names", "frozen_param_fragments"}


@pytest.mark.parametrize("name", PARTITIONED)
def test_a_part_of_a_tensor(name: str) -> None:
    whole = expected(name)[0]["body.weight"]
    with open_source(str(DATA / name)) as source:
        assert source.losses == ()
        tensor = source.tree["module"]["body.weight"]
        for low, high in product(range(7), range(8)):
            for index in (
                (slice(low, high),),
                (slice(low, high), slice(1, 3)),
                (slice(0, 7), slice(low % 3, high % 4)),
            ):
                assert_same_tree(np.ascontiguousarray(tensor[index]), np.ascontiguousarray(whole[index]))


def test_a_part_of_what_is_reshaped_reads_only_that() -> None:
    read: list[int] = []
    flat = np.arange(24.0)
    pieces = [((at,), flat[at : at + 3]) for at in range(0, 24, 3)]
    joint = joined("w", (24,), flat.dtype, pieces)
    honest = joint.read
    object.__setattr__(joint, "read", lambda index: read.append(index[0].stop - index[0].start) or honest(index))
    for shape in ((24,), (2, 3, 4), (1, 24), (24, 1), (1, 1, 8, 3)):
        tensor, array = reshaped(joint, shape), flat.reshape(shape)
        assert_same_tree(tensor[()], array)
        for low, high in product(range(shape[-1]), range(shape[-1] + 1)):
            index = (*[slice(side - 1, side) for side in shape[:-1]], slice(low, high))
            read.clear()
            assert_same_tree(tensor[index], array[index])
            assert read == [max(0, high - low)]
    assert_same_tree(reshaped(flat[:1], ())[...], np.array(0.0))


def test_a_run_names_its_step(tmp_path: Path) -> None:
    run = copied("zero2", tmp_path)
    shutil.copytree(run / "global_step2", run / "global_step1")
    with open_source(str(run)) as source, open_source(str(run / "global_step2")) as step:
        assert (source.format, step.format) == ("deepspeed", "deepspeed")
        assert source.size == step.size
    (run / "latest").unlink()
    with pytest.raises(ckptfmt.InputError, match=r"global_step1 .*global_step2") as raised:
        open_source(str(run))
    assert raised.value.code == "ambiguous-source"


def test_weights_of_transformers_beside_it_come_first(tmp_path: Path) -> None:
    run = copied("zero2", tmp_path)
    safetensors.numpy.save_file({"w": np.ones(2)}, run / "model.safetensors")
    with open_source(str(run)) as source:
        assert source.format == "safetensors"
    with open_source(str(run), "deepspeed") as source:
        assert "module" in source.tree


def test_weights_without_partitions(tmp_path: Path) -> None:
    """As people keep them to go on with the weights alone; those of ZeRO 3 lie nowhere else."""
    step = copied("zero2", tmp_path) / "global_step2"
    for file in step.glob("*optim*"):
        file.unlink()
    with open_source(str(step)) as source:
        assert [loss.kind for loss in source.losses] == ["missing"]
        assert source.tree["module"]["body.weight"].dtype.name == "bfloat16"
        assert "optimizer" not in source.tree
    step = copied("zero3", tmp_path) / "global_step2"
    for file in step.glob("*optim*"):
        file.unlink()
    refused(step, "bad-source", "is empty in the model")


# ---- what does not fit


def refused(path: Path, code: str, *words: str) -> None:
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(path, path.parent / "x.ckpt", source_format="deepspeed", allow_loss=True)
    assert raised.value.code == code, raised.value
    assert all(word in str(raised.value) for word in words), raised.value
    assert not (path.parent / "x.ckpt").exists()


OPTIMIZER = "bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt"


def gone(name: str) -> Callable[[Path], None]:
    return lambda step: (step / name).unlink()


def moved(name: str, to: str) -> Callable[[Path], Any]:
    return lambda step: shutil.copy(step / name, step / to)


FILES: dict[str, tuple[str, Callable[[Path], Any], str, str]] = {
    "the first": ("zero2", gone(OPTIMIZER.format(0)), "bad-source", "rank 0 are missing"),
    "one between": ("zero2", gone(OPTIMIZER.format(1)), "bad-source", "rank 1 are missing"),
    "the last": ("zero2", gone(OPTIMIZER.format(2)), "bad-source", "2 partitions, where 3"),
    "one more": ("zero2", moved(OPTIMIZER.format(0), OPTIMIZER.format(3)), "bad-source", "4 partitions, where 3"),
    "one twice": ("zero2", moved(OPTIMIZER.format(0), OPTIMIZER.format(0)[5:]), "bad-source", "both of one rank"),
    "of the model": ("zero3", gone("zero_pp_rank_1_mp_rank_00_model_states.pt"), "bad-source", "1 files of the model"),
    "of other worlds": (
        "zero2",
        lambda step: shutil.copy(DATA / "zero3/global_step2" / OPTIMIZER.format(0), step),
        "bad-source",
        "different saves",
    ),
    "of model parallelism": (
        "zero2",
        moved("mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"),
        "unsupported-source",
        "universal",
    ),
    "of experts": (
        "zero2",
        moved("mp_rank_00_model_states.pt", "layer_0_expert_0_mp_rank_00_model_states.pt"),
        "unsupported-source",
        "universal",
    ),
    "of a parameter": (
        "zero2-universal",
        lambda step: shutil.rmtree(step / "zero/body.bias"),
        "bad-source",
        "no folder of 'body.bias'",
    ),
    "in full precision": ("zero2-universal", gone("zero/body.bias/fp32.pt"), "bad-source", "no fp32.pt of 'body.bias'"),
    "of another parameter": (
        "zero2-universal",
        moved("zero/body.bias/fp32.pt", "zero/body.weight/fp32.pt"),
        "bad-source",
        "(7, 3)",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_not_those(tmp_path: Path, what: str) -> None:
    name, change, code, words = FILES[what]
    run = copied(name, tmp_path)
    change(run / "global_step2")
    refused(run, code, words)


def rewritten(file: Path, *place: Any, value: Any) -> None:
    """Set a value of a file of torch; a function makes it of the one that is there."""
    with open_source(str(file), "torch") as source:
        tree = torch_file.values(with_arrays(source.tree))
        holder = tree
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value(holder[place[-1]]) if callable(value) else value
        file.unlink()
        torch.save(tree, file)


MODEL, FIRST = "mp_rank_00_model_states.pt", OPTIMIZER.format(0)
STATE = "optimizer_state_dict"
BASE = (STATE, "base_optimizer_state")
VALUES: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "another version": (FIRST, ("ds_version",), "0.1"),
    "another count": (FIRST, (STATE, "partition_count"), [4, 4]),
    "no count": (FIRST, (STATE, "partition_count"), "x"),
    "counts of none": (FIRST, (STATE, "partition_count"), []),
    "another world": (MODEL, ("dp_world_size",), 4),
    "another step": (FIRST, (*BASE, "state", 0, "step"), lambda step: step + 1),
    "other groups": (FIRST, (*BASE, "param_groups", 0, "lr"), 7.0),
    "no groups": (FIRST, (*BASE, "param_groups"), []),
    "a group less": (FIRST, (STATE, "single_partition_of_fp32_groups"), lambda groups: groups[:1]),
    "no tensors": (FIRST, (STATE, "single_partition_of_fp32_groups"), [1, 2]),
    "two axes": (FIRST, (STATE, "single_partition_of_fp32_groups", 0), lambda part: part.reshape(2, -1)),
    "another dtype": (FIRST, (STATE, "single_partition_of_fp32_groups", 0), lambda part: part.double()),
    "a shorter one": (FIRST, (STATE, "single_partition_of_fp32_groups", 0), lambda part: part[:3]),
    "a longer one": (FIRST, (STATE, "single_partition_of_fp32_groups", 0), lambda part: part.repeat(5)),
    "a shorter state": (FIRST, (*BASE, "state", 0, "exp_avg"), lambda part: part[:3]),
    "no state": (FIRST, (*BASE, "state", 0, "exp_avg"), None),
    "padding": (FIRST, (STATE, "param_alignment_paddings"), [[0, 0], [0, 40, 0]]),
    "no padding": (FIRST, (STATE, "param_alignment_paddings"), [[0, -1], [0, 0, 0]]),
    "paddings of less": (FIRST, (STATE, "param_alignment_paddings"), [[0], [0, 0, 0]]),
    "a larger shape": (MODEL, ("param_shapes", 0, "embed.weight"), (50, 3)),
    "a smaller shape": (MODEL, ("param_shapes", 0, "embed.weight"), (1, 3)),
    "a vast shape": (MODEL, ("param_shapes", 0, "embed.weight"), (1 << 40, 1 << 40)),
    "a negative side": (MODEL, ("param_shapes", 0, "embed.weight"), (-5, -3)),
    "no shape": (MODEL, ("param_shapes", 0, "embed.weight"), "x"),
    "no shapes": (MODEL, ("param_shapes",), "x"),
    "a parameter twice": (MODEL, ("param_shapes", 1, "embed.weight"), (5, 3)),
    "frozen otherwise": (MODEL, ("frozen_param_shapes", "frozen.bias"), (4,)),
    "frozen nowhere": (MODEL, ("frozen_param_fragments",), {}),
    "shared with nothing": (MODEL, ("shared_params", "head.weight"), "nowhere"),
    "shared with a list": (MODEL, ("shared_params", "head.weight"), [1]),
    "no module": (MODEL, ("module",), None),
}


@pytest.mark.parametrize("what", VALUES)
def test_values_that_do_not_fit(tmp_path: Path, what: str) -> None:
    run = copied("zero2", tmp_path)
    name, place, value = VALUES[what]
    rewritten(run / "global_step2" / name, *place, value=value)
    refused(run, "bad-source")


def test_what_is_rewritten_is_read(tmp_path: Path) -> None:
    run = copied("zero2", tmp_path)
    rewritten(run / "global_step2" / FIRST, "ds_version", value="0.19.8")
    rewritten(run / "global_step2" / MODEL, "dp_world_size", value=3)
    ckptfmt.convert(run, tmp_path / "x.ckpt")


@pytest.mark.parametrize("step", ["..", ".", "", "/etc", "../zero3", "a/b", "gone", "x" * 5000, "\0"])
def test_runs_that_name_no_step(tmp_path: Path, step: str) -> None:
    run = copied("zero2", tmp_path)
    (run / "latest").write_text(step)
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(run, tmp_path / "x.ckpt", source_format="deepspeed")
    assert raised.value.code in ("unsafe-source", "not-found", "limit-exceeded")


def test_links_that_lead_out(tmp_path: Path) -> None:
    run = copied("zero2", tmp_path)
    file = run / "global_step2" / FIRST
    shutil.move(file, tmp_path / "away")
    file.symlink_to(tmp_path / "away")
    refused(run, "unsafe-source")
    run = copied("zero2-universal", tmp_path)
    shutil.move(run / "global_step2/zero/body.bias", tmp_path / "folder")
    (run / "global_step2/zero/body.bias").symlink_to(tmp_path / "folder")
    refused(run, "unsafe-source")


@pytest.mark.parametrize("name", ["zero2", "zero3", "zero2-universal"])
def test_damage_is_told(tmp_path: Path, name: str) -> None:
    """Files that are cut off, or have a byte changed, are read or refused."""
    draw = random.Random(1)
    run = copied(name, tmp_path)
    for file in sorted(run.rglob("*.pt"))[:6]:
        raw = file.read_bytes()
        cuts = [raw[: draw.randrange(len(raw))] for _ in range(4)]
        places = [draw.randrange(len(raw)) for _ in range(12)]
        for changed in (
            *cuts,
            *(raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :] for at in places),
        ):
            file.write_bytes(changed)
            try:
                with open_source(str(run)) as source:
                    for _, leaf in walk(source.tree):
                        np.asarray(leaf[()]) if is_tensor(leaf) else None
            except ckptfmt.CkptError as error:
                assert error.code in ("bad-source", "unsafe-source", "unsupported-source", "limit-exceeded")
        file.write_bytes(raw)
