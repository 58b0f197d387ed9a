"""Models of transformers from checkpoints, in folders and in one file: the same models, to the bit."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import ckptfmt
from ckptfmt import CheckpointManager

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("default")  # its warnings are its own

from ckptfmt_torch.transformers import from_pretrained, save_pretrained  # noqa: E402
from tiny_models import MODELS, logits, made  # noqa: E402

GPT2, AUTO = MODELS["gpt2"].kind, MODELS["gpt2"].auto


@pytest.mark.parametrize("name", MODELS)
def test_from_a_folder_and_from_a_file_alone(tmp_path: Path, name: str) -> None:
    """By its own class and by one that chooses: what transformers gives from its own files."""
    model, (kind, auto, _, _) = made(name), MODELS[name]
    model.save_pretrained(tmp_path / "theirs")
    theirs = kind.from_pretrained(tmp_path / "theirs")
    save_pretrained(model, tmp_path / "folder")
    save_pretrained(model, tmp_path / "file.ckpt", compression="zstd")
    ours = sorted(os.listdir(tmp_path / "folder"))
    assert ours == sorted({*os.listdir(tmp_path / "theirs"), "model.ckpt"} - {"model.safetensors"})
    for file in ours[:-1]:
        assert (tmp_path / "folder" / file).read_text() == (tmp_path / "theirs" / file).read_text()
    for path, cls, options in (
        ("folder", kind, {}),
        ("folder", auto, {"mmap": False, "verify": False}),
        ("folder/model.ckpt", auto, {}),
        ("file.ckpt", auto, {}),
    ):
        again = from_pretrained(cls, tmp_path / path, **options)
        assert type(again) is type(model)
        assert torch.equal(logits(name, again), logits(name, model))
        same_state(again, theirs)
        assert again.name_or_path == str(tmp_path / path)


def same_state(model: Any, expected: Any) -> None:
    """The same parameters and buffers, also those that no checkpoint has, tied in the same way."""
    for kind in ("named_parameters", "named_buffers"):
        found, wanted = (dict(getattr(one, kind)(remove_duplicate=False)) for one in (model, expected))
        assert list(found) == list(wanted)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert all(found[name].requires_grad == wanted[name].requires_grad for name in wanted)
        ties = [[[a is b for b in of.values()] for a in of.values()] for of in (found, wanted)]
        assert ties[0] == ties[1]
    assert model.training == expected.training
    ours, theirs = (one.config.to_dict() for one in (model, expected))
    assert {**ours, "_name_or_path": ""} == {**theirs, "_name_or_path": ""}
    assert getattr(model, "generation_config", None) == getattr(expected, "generation_config", None)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what is mapped")
def test_parameters_are_mappings_of_the_file(tmp_path: Path) -> None:
    """Which nobody changes but in memory; of another dtype they have memory of their own."""
    save_pretrained(made("llama"), tmp_path / "m")
    before = (tmp_path / "m" / "model.ckpt").read_bytes()

    def is_mapped(tensor: torch.Tensor) -> bool:
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        areas = [line[0].split("-") for line in lines if line[-1] == str(tmp_path / "m" / "model.ckpt")]
        return any(int(first, 16) <= tensor.data_ptr() < int(last, 16) for first, last in areas)

    model = from_pretrained(AUTO, tmp_path / "m")
    assert all(is_mapped(one) for one in model.parameters())
    assert not any(is_mapped(one) for one in model.buffers())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(**MODELS["llama"].inputs).logits.sum().backward()
    optimizer.step()
    assert (tmp_path / "m" / "model.ckpt").read_bytes() == before
    del model, optimizer
    for options in ({"mmap": False}, {"dtype": torch.bfloat16}, {"torch_dtype": torch.bfloat16}):
        model = from_pretrained(AUTO, tmp_path / "m", **options)
        assert not any(is_mapped(one) for one in model.parameters())
        expected = torch.float32 if "mmap" in options else torch.bfloat16
        assert {one.dtype for one in model.parameters()} == {expected}


def test_options_of_transformers(tmp_path: Path) -> None:
    model = made("gpt2").to(torch.bfloat16)
    save_pretrained(model, tmp_path / "m")
    assert from_pretrained(AUTO, tmp_path / "m", dtype="auto").dtype == torch.bfloat16  # as it was saved
    found, info = from_pretrained(
        AUTO,
        tmp_path / "m",
        dtype=torch.float32,
        device_map="cpu",
        attn_implementation="eager",
        resid_pdrop=0.5,
        output_loading_info=True,
    )
    assert (found.dtype, found.config.resid_pdrop, found.config._attn_implementation) == (torch.float32, 0.5, "eager")
    assert not any(info.values())
    base, info = from_pretrained(transformers.AutoModel, tmp_path / "m", output_loading_info=True)
    assert type(base) is transformers.GPT2Model
    assert not info["missing_keys"]
    assert torch.equal(base.wte.weight, model.transformer.wte.weight)
    classifier, info = from_pretrained(
        transformers.AutoModelForSequenceClassification, tmp_path / "m", num_labels=3, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {"score.weight"}
    assert classifier.score.weight.shape == (3, 16)


def test_the_weights_of_a_run(tmp_path: Path) -> None:
    model = made("gpt2")
    with CheckpointManager(tmp_path / "run", durable=False) as manager:
        manager.save(1, {"model": model, "optimizer": torch.optim.AdamW(model.parameters()), "step": 1})
        step = manager.latest()
    assert step is not None
    with pytest.raises(ckptfmt.CkptError, match="how the model is made") as raised:
        from_pretrained(AUTO, step.path, prefix="model")
    assert (raised.value.code, raised.value.advice) == ("not-found", "Give config=")
    again = from_pretrained(AUTO, step.path, prefix="model", config=model.config)
    assert torch.equal(logits("gpt2", again), logits("gpt2", model))


def test_a_folder_with_something_else(tmp_path: Path) -> None:
    save_pretrained(made("gpt2"), tmp_path / "m", metadata={"note": "x"})
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    (tmp_path / "m" / "model.ckpt").rename(tmp_path / "m" / "weights.ckpt")
    with ckptfmt.open(tmp_path / "m" / "weights.ckpt") as checkpoint:
        assert checkpoint.metadata["note"] == "x"
        assert checkpoint.metadata["config"]["model_type"] == "gpt2"
    from_pretrained(AUTO, tmp_path / "m")
    with pytest.raises(ckptfmt.CkptError) as raised:
        save_pretrained(made("gpt2"), tmp_path / "m" / "weights.ckpt")
    assert raised.value.code == "exists"
    ckptfmt.save(tmp_path / "m" / "other.ckpt", {})
    with pytest.raises(ckptfmt.CkptError, match="nor one other checkpoint"):
        from_pretrained(AUTO, tmp_path / "m")
    save_pretrained(made("gpt2"), tmp_path / "m")
    from_pretrained(AUTO, tmp_path / "m")
    save_pretrained(made("gpt2"), tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "tokenizer.json").exists()


def test_a_flipped_bit_is_found_before_there_is_a_model(tmp_path: Path) -> None:
    save_pretrained(made("gpt2"), tmp_path / "m")
    path = tmp_path / "m" / "model.ckpt"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ckptfmt.CorruptError):
        from_pretrained(AUTO, tmp_path / "m")


def test_the_weights_go_to_others(tmp_path: Path) -> None:
    """One file becomes the folder of transformers: its configuration is JSON in the metadata."""
    model = made("t5")
    save_pretrained(model, tmp_path / "m")
    assert ckptfmt.convert(tmp_path / "m" / "model.ckpt", tmp_path / "m" / "model.safetensors").losses == ()
    again = MODELS["t5"].auto.from_pretrained(tmp_path / "m")
    assert torch.equal(logits("t5", again), logits("t5", model))
    with ckptfmt.open(tmp_path / "m" / "model.ckpt") as checkpoint:
        assert checkpoint.metadata["config"] == json.loads((tmp_path / "m" / "config.json").read_text())


CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(3, 2)
        self.post_init()
"""


def test_a_model_with_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which goes along, as with transformers, and runs for those who trust it alone."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (tmp_path / "of_my_own.py").write_text(CODE)
    own = importlib.import_module("of_my_own")
    own.OwnConfig.register_for_auto_class()
    own.OwnModel.register_for_auto_class("AutoModel")
    model = own.OwnModel(own.OwnConfig())
    save_pretrained(model, tmp_path / "m")
    assert (tmp_path / "m" / "of_my_own.py").read_text() == CODE
    again = from_pretrained(transformers.AutoModel, tmp_path / "m", trust_remote_code=True)
    assert type(again).__name__ == "OwnModel"
    assert torch.equal(again.layer.weight, model.layer.weight)
    with pytest.raises(ValueError, match="trust_remote_code"):
        from_pretrained(transformers.AutoModel, tmp_path / "m", trust_remote_code=False)


def lora(**more: Any) -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, **more)
    model = peft.get_peft_model(made("gpt2"), config)
    for name, value in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value.data)
    return model.eval()


def test_adapters_of_peft(tmp_path: Path) -> None:
    model = lora()
    from ckptfmt_torch.peft import load_adapter, save_adapter

    save_adapter(model, tmp_path / "a")
    assert sorted(os.listdir(tmp_path / "a")) == ["adapter_config.json", "adapter_model.ckpt"]
    again = load_adapter(made("gpt2"), tmp_path / "a")
    assert torch.equal(logits("gpt2", again), logits("gpt2", model))
    assert not again.training
    assert not any(value.requires_grad for value in again.parameters())
    trainable = load_adapter(made("gpt2"), tmp_path / "a", is_trainable=True)
    assert {"lora_" in name for name, value in trainable.named_parameters() if value.requires_grad} == {True}
    load_adapter(again, tmp_path / "a", "second")
    assert set(again.peft_config) == {"default", "second"}
    with pytest.raises(ckptfmt.MismatchError, match="not that of this model"):
        load_adapter(made("gpt2"), changed(tmp_path / "a", tmp_path / "b"))

    merged = model.merge_and_unload()
    save_pretrained(merged, tmp_path / "merged")
    assert torch.equal(logits("gpt2", from_pretrained(AUTO, tmp_path / "merged")), logits("gpt2", merged))


def changed(source: Path, target: Path) -> Path:
    """An adapter without one of its tensors, and with one that it had not."""
    target.mkdir()
    (target / "adapter_config.json").write_text((source / "adapter_config.json").read_text())
    tree = dict(ckptfmt_torch.load(source / "adapter_model.ckpt"))
    name = next(iter(tree))
    ckptfmt_torch.save(target / "adapter_model.ckpt", {**tree, f"{name}.odd": tree.pop(name)})
    return target


def test_the_folder_of_peft_both_ways(tmp_path: Path) -> None:
    model = lora()
    peft = pytest.importorskip("peft")
    from ckptfmt_torch.peft import load_adapter, save_adapter

    model.save_pretrained(tmp_path / "theirs")
    ckptfmt.convert(tmp_path / "theirs", tmp_path / "theirs" / "adapter_model.ckpt")
    again = load_adapter(made("gpt2"), tmp_path / "theirs")
    assert torch.equal(logits("gpt2", again), logits("gpt2", model))
    save_adapter(model, tmp_path / "ours")
    ckptfmt.convert(tmp_path / "ours" / "adapter_model.ckpt", tmp_path / "ours" / "adapter_model.safetensors")
    again = peft.PeftModel.from_pretrained(made("gpt2"), tmp_path / "ours")
    assert torch.equal(logits("gpt2", again), logits("gpt2", model))
