"""Weights that transformers reads: of a checkpoint, and of a training run, converted into its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ckptfmt
from ckptfmt import CheckpointManager

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")  # its warnings are its own

from tiny_models import MODELS, logits, made  # noqa: E402

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("name", MODELS)
def test_files_as_save_pretrained_makes_them(tmp_path: Path, name: str) -> None:
    """The same names, tensors and sizes; and `from_pretrained` gives the same model, to the bit."""
    model = made(name)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="5KB")
    model.config.save_pretrained(tmp_path / "ours")
    ckptfmt_torch.save(tmp_path / "x.ckpt", model.state_dict())
    for size in ("1GB", "5KB"):
        options: dict[str, Any] = {"target_format": "safetensors", "max_shard_size": size, "overwrite": True}
        assert ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "ours", **options).losses == ()
        again = MODELS[name].auto.from_pretrained(tmp_path / "ours")
        assert type(again) is type(model)
        assert torch.equal(logits(name, again), logits(name, model))
    ours, theirs = (json.loads((tmp_path / whose / INDEX).read_text()) for whose in ("ours", "theirs"))
    assert ours["weight_map"] == theirs["weight_map"]
    assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]
    files = [sorted(file.name for file in (tmp_path / whose).glob("model*")) for whose in ("ours", "theirs")]
    assert files[0] == files[1]
    theirs_converted = ckptfmt.convert(tmp_path / "theirs", tmp_path / "theirs.ckpt")
    assert theirs_converted.losses == ()
    ckptfmt.convert(tmp_path / "ours", tmp_path / "ours.ckpt")
    assert set(ckptfmt.load(tmp_path / "ours.ckpt")) == set(model.state_dict())


def trained(name: str) -> tuple[Any, Any]:
    """A model and an optimizer after two steps."""
    model = made(name).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        loss = model(**MODELS[name].inputs).logits.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), optimizer


@pytest.mark.parametrize("name", MODELS)
def test_a_training_checkpoint_gives_its_weights_alone(tmp_path: Path, name: str) -> None:
    """Without allowing a loss: the state of the run, and what a manager says of it, are none of the weights'."""
    model, optimizer = trained(name)
    tree = {"model": model, "optimizer": optimizer, "step": 2, "note": "x", "sizes": torch.Size([3, 4])}
    with CheckpointManager(tmp_path / "run", durable=False) as manager:
        manager.save(2, tree, metrics={"loss": 0.5}, metadata={"seed": 0})
    ckptfmt_torch.save(tmp_path / "alone.ckpt", tree, metadata={"lr": 0.01})
    (step,) = manager.steps()
    model.config.save_pretrained(tmp_path / "folder")
    options: dict[str, Any] = {"select": "model/**", "root": "model"}
    report = ckptfmt.convert(step.path, tmp_path / "folder" / "model.safetensors", **options)
    assert report.losses == ()
    assert report.tensors == len(model.state_dict())
    attention = {"attn_implementation": model.config._attn_implementation}  # of which old versions take another here
    again = MODELS[name].auto.from_pretrained(tmp_path / "folder", **attention)
    assert torch.equal(logits(name, again), logits(name, model))
    assert ckptfmt.convert(tmp_path / "alone.ckpt", tmp_path / "alone.safetensors", **options).losses == ()
    assert ckptfmt.diff(tmp_path / "alone.safetensors", tmp_path / "folder" / "model.safetensors").changed == ()


@pytest.mark.parametrize("suffix", ["pt", "npz", "msgpack", "h5"])
def test_what_a_manager_says_is_of_the_whole(tmp_path: Path, suffix: str) -> None:
    """Of a part it is no loss; of the whole, and of the caller's own metadata, it is."""
    tree = {"model": {"w": torch.arange(4.0)}, "step": torch.tensor(2)}
    with CheckpointManager(tmp_path / "run", durable=False) as manager:
        manager.save(2, tree, metrics={"loss": 0.5})
        manager.save(3, tree, metrics={"loss": 0.5}, metadata={"seed": 0})
    plain, more = (step.path for step in manager.steps())
    assert ckptfmt.convert(plain, tmp_path / f"a.{suffix}", root="model").losses == ()
    for source, options, lost in [
        (plain, {}, "'ckptfmt.run' is left out"),
        (more, {"root": "model"}, "'seed' is left out"),
    ]:
        with pytest.raises(ckptfmt.InputError, match=lost) as raised:
            ckptfmt.convert(source, tmp_path / f"b.{suffix}", **options)
        assert raised.value.code == "lossy"
