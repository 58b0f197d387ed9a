"""The migrations between names of GGUF and those of Hugging Face: they agree with the table of the package gguf, and
transformers reads the same model out of a GGUF that was written here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import peer

import ckptfmt
from ckptfmt.migration.document import EXAMPLES
from ckptfmt.testing.equality import assert_same_tree

gguf = pytest.importorskip("gguf")
NAMES = {"llama": ("gguf-llama", "hf"), "mixtral": ("gguf-mixtral", "list"), "qwen2": ("gguf-qwen2", "hf")}
NAMES |= {"qwen3": ("gguf-qwen3", "hf")}
ARCHITECTURES = {"llama": "LLAMA", "mixtral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
# what files of a model do not have: of Llama the experts, of Mixtral all else between
_EXPERTS = {"ffn_gate_inp", "ffn_gate_exps", "ffn_down_exps", "ffn_up_exps"}
LACKING = {"llama": {"attn_rot_embd", *_EXPERTS}, "mixtral": {"attn_rot_embd", "ffn_gate", "ffn_down", "ffn_up"}}


def pairs(document: Any) -> Iterator[tuple[str, str]]:
    """The names that a document maps, in layer 1."""
    for rule in document["rules"]:
        for end in ("weight", "bias") if "{p:weight|bias}" in rule["from"] else ("",):
            name, ours = (side.replace("{i:int}", "1").replace("{i}", "1") for side in (rule["from"], rule["to"]))
            ours = ours.replace(".{e:int}", "")  # which the table leaves out
            yield name.replace("{p:weight|bias}", end), ours.replace("{p}", end)


@pytest.mark.parametrize("family", NAMES)
def test_names_are_those_of_the_table_of_gguf(family: str) -> None:
    document = json.loads(Path(EXAMPLES, f"{NAMES[family][0]}.json").read_text())
    architecture = getattr(gguf.MODEL_ARCH, ARCHITECTURES[family])
    table = gguf.get_tensor_name_map(architecture, 2)
    found = dict(pairs(document))
    for name, ours in found.items():
        if name != "rope_freqs.weight":  # which models of Hugging Face compute
            assert table.get_name(ours, try_suffixes=(".weight", ".bias")) == name
    names = {name.rpartition(".")[0].removeprefix("blk.1.") for name in found}
    expected = {gguf.TENSOR_NAMES[kind].removeprefix("blk.{bid}.") for kind in gguf.MODEL_TENSORS[architecture]}
    assert names == expected - LACKING.get(family, set())


# ---- real models

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
MODELS = {
    "Llama": ("llama", "llama", {}),
    "Mistral": ("llama", "llama", {}),
    "Qwen2": ("qwen2", "qwen2", {}),
    "Qwen3": ("qwen3", "qwen3", {"head_dim": 128}),
}


def keys_of(architecture: str) -> dict[str, Any]:
    """The keys that transformers asks a GGUF for."""
    of_model = {
        "block_count": SIZES["num_hidden_layers"],
        "context_length": SIZES["max_position_embeddings"],
        "embedding_length": SIZES["hidden_size"],
        "feed_forward_length": SIZES["intermediate_size"],
        "attention.head_count": SIZES["num_attention_heads"],
        "attention.head_count_kv": SIZES["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(np.float32(1e-6)),
        "rope.freq_base": 10000.0,
        "vocab_size": SIZES["vocab_size"],
    }
    about = {"general.architecture": architecture, "general.name": "tiny"}
    return about | {f"{architecture}.{key}": value for key, value in of_model.items()}


@pytest.mark.parametrize("name", MODELS)
def test_transformers_reads_the_same_model(tmp_path: Path, name: str) -> None:
    torch, transformers = peer("torch"), peer("transformers")
    family, architecture, more = MODELS[name]
    config = getattr(transformers, f"{name}Config")(**SIZES, **more, tie_word_embeddings=False)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    tree = {key: value.numpy() for key, value in model.state_dict().items()}
    document, version = NAMES[family]
    metadata = {"gguf.metadata": keys_of(architecture)}
    ckptfmt.save(tmp_path / "hf.ckpt", tree, schema=(family, version), metadata=metadata, durable=False)
    options: dict[str, Any] = {"migrations": f"example:{document}", "durable": False}
    ckptfmt.migrate(tmp_path / "hf.ckpt", tmp_path / "names.ckpt", schema="gguf", down=True, **options)
    ckptfmt.convert(tmp_path / "names.ckpt", tmp_path / "x.gguf", allow_loss="metadata", durable=False)
    reader = name.replace("Mistral", "Llama")  # whose architecture GGUF has for both
    read = getattr(transformers, f"{reader}ForCausalLM").from_pretrained(tmp_path, gguf_file="x.gguf")
    found = {key: value.numpy() for key, value in read.state_dict().items()}
    assert_same_tree({key: found[key] for key in tree}, tree)

    ckptfmt.convert(tmp_path / "x.gguf", tmp_path / "x.ckpt", durable=False)
    ckptfmt.migrate(tmp_path / "x.ckpt", tmp_path / "y.ckpt", schema=version, source_schema=(family, "gguf"), **options)
    back = ckptfmt.load(tmp_path / "y.ckpt")
    assert_same_tree({key: back[key] for key in tree}, tree)
    assert back.keys() == tree.keys()


def test_experts_are_unstacked_and_biases_turned(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = {"q": 8, "k": 4, "v": 4, "output": 6}
    blk = {f"attn_{name}.weight": rng.normal(size=(count, 6)) for name, count in rows.items()}
    blk |= {f"attn_{name}.bias": rng.normal(size=count) for name, count in rows.items()}
    blk |= {f"ffn_{name}_exps.weight": rng.normal(size=(3, 5, 6)) for name in ("gate", "up", "down")}
    blk |= {
        "ffn_gate_inp.weight": rng.normal(size=(3, 6)),
        "attn_norm.weight": np.ones(6),
        "ffn_norm.weight": np.ones(6),
    }
    tree = {f"blk.0.{key}": value for key, value in blk.items()}
    tree |= {"token_embd.weight": rng.normal(size=(9, 6)), "output_norm.weight": np.ones(6)}
    ckptfmt.save(tmp_path / "a.ckpt", tree, schema=("mixtral", "gguf"), durable=False)
    options: dict[str, Any] = {"migrations": "example:gguf-mixtral", "parameters": {"heads": 2, "kv_heads": 1}}
    with ckptfmt.open(tmp_path / "a.ckpt", schema="list", **options) as view:
        found = view.load()
        assert str(view.plan.loss) == "exact"
    layer = "model.layers.0"
    for number in range(3):
        expert = found[f"{layer}.block_sparse_moe.experts.{number}.w3.weight"]
        np.testing.assert_array_equal(expert, blk["ffn_up_exps.weight"][number])
    for kind in ("weight", "bias"):
        one = blk[f"attn_q.{kind}"]
        expected = one.reshape(2, 2, 2, *one.shape[1:]).swapaxes(1, 2).reshape(one.shape)
        np.testing.assert_array_equal(found[f"{layer}.self_attn.q_proj.{kind}"], expected)
