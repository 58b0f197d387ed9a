"""The example migrations carry real models over: true names and shapes, small sizes, and results that
compute the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peers import peer

import ckptfmt
from ckptfmt.migration.document import EXAMPLES
from ckptfmt.testing.equality import assert_same_tree

torch = peer("torch")
transformers = peer("transformers")

DOCUMENTS = Path(EXAMPLES)
RNG = np.random.default_rng(5)


def test_they_are_there_by_name() -> None:
    for document in DOCUMENTS.iterdir():
        assert ckptfmt.MigrationSet(f"example:{document.stem}").migrations == ckptfmt.MigrationSet(document).migrations
    with pytest.raises(ckptfmt.InputError, match="there is no example 'lama'; did you mean 'llama'"):
        ckptfmt.MigrationSet("example:lama")
    with pytest.raises(ckptfmt.InputError, match=re.escape("no example '../llama'")):
        ckptfmt.MigrationSet("example:../llama")


def weights(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


def there_and_back(folder: Path, tree: Any, name: str, versions: list[str], **options: Any) -> list[Any]:
    """The trees at all versions; going back from each gives the first, bit for bit."""
    document = DOCUMENTS / name
    schema = ckptfmt.MigrationSet(document).migrations[0].schema
    ckptfmt.save(folder / "first", tree, schema=(schema, versions[0]), **options)
    trees = [ckptfmt.load(folder / "first")]
    for version in versions[1:]:
        ckptfmt.migrate(folder / "first", folder / version, document, schema=version)
        ckptfmt.migrate(folder / version, folder / f"back-{version}", document, schema=versions[0], down=True)
        trees.append(ckptfmt.load(folder / version))
        assert_same_tree(ordered(ckptfmt.load(folder / f"back-{version}")), ordered(trees[0]))
        assert ckptfmt.verify(folder / version).ok
    return trees


def ordered(tree: Any) -> Any:
    """The same tree with sorted keys: the order of a dict is no part of its value. [TREE-008]"""
    if isinstance(tree, dict):
        return {key: ordered(tree[key]) for key in sorted(tree, key=str)}
    return tree


HEADS, KV_HEADS, HEAD_DIM, DIM, FFN, VOCAB, LAYERS = 4, 2, 8, 32, 80, 96, 12
CONFIG = {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM}


def llama() -> dict[str, Any]:
    tree = {"model.embed_tokens.weight": weights(VOCAB, DIM, dtype=ml_dtypes.bfloat16)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for name, rows in (("q", HEADS * HEAD_DIM), ("k", KV_HEADS * HEAD_DIM), ("v", KV_HEADS * HEAD_DIM)):
            tree[f"{layer}.self_attn.{name}_proj.weight"] = weights(rows, DIM)
        tree[f"{layer}.self_attn.o_proj.weight"] = weights(DIM, HEADS * HEAD_DIM)
        for name, shape in (("gate", (FFN, DIM)), ("up", (FFN, DIM)), ("down", (DIM, FFN))):
            tree[f"{layer}.mlp.{name}_proj.weight"] = weights(*shape, dtype=ml_dtypes.bfloat16)
        for name in ("input", "post_attention"):
            tree[f"{layer}.{name}_layernorm.weight"] = weights(DIM)
    return tree | {"model.norm.weight": weights(DIM), "lm_head.weight": weights(VOCAB, DIM)}


def rotated_halves(x: Any, angles: Any) -> Any:
    """Rotary embedding as Hugging Face computes it: element d pairs with d + D/2."""
    one, other = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([one * cos - other * sin, other * cos + one * sin], axis=-1)


def rotated_pairs(x: Any, angles: Any) -> Any:
    """Rotary embedding as Meta computes it: neighbours are a complex number."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def scores(q: Any, k: Any, rotated: Any) -> Any:
    """Attention scores between position 3 and position 1 for each head."""
    x = np.linspace(-1, 1, DIM)
    frequencies = 10000.0 ** -(np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    query = rotated((q @ x).reshape(HEADS, HEAD_DIM), 3 * frequencies)
    key = rotated((k @ x[::-1]).reshape(KV_HEADS, HEAD_DIM), frequencies)
    return np.einsum("gqd,gd->gq", query.reshape(KV_HEADS, -1, HEAD_DIM), key)


def test_llama(tmp_path: Path) -> None:
    hf, meta, fused = there_and_back(
        tmp_path, llama(), "llama.json", ["hf", "meta", "meta-fused"], metadata={"config": CONFIG}
    )
    assert len(meta) == len(hf)
    np.testing.assert_array_equal(meta["layers.7.feed_forward.w3.weight"], hf["model.layers.7.mlp.up_proj.weight"])
    for i in (0, 11):
        q, k = (hf[f"model.layers.{i}.self_attn.{name}_proj.weight"] for name in "qk")
        wq, wk, wv = (meta[f"layers.{i}.attention.w{name}.weight"] for name in "qkv")
        # what Meta's own script does the other way round
        expected = q.reshape(HEADS, 2, HEAD_DIM // 2, DIM).transpose(0, 2, 1, 3).reshape(-1, DIM)
        np.testing.assert_array_equal(wq, expected)
        assert not np.array_equal(wq, q)
        np.testing.assert_allclose(scores(q, k, rotated_halves), scores(wq, wk, rotated_pairs), rtol=1e-5)
        np.testing.assert_array_equal(fused[f"layers.{i}.attention.wqkv.weight"], np.concatenate([wq, wk, wv]))


@pytest.mark.parametrize("tied", [True, False])
def test_llama_of_transformers(tmp_path: Path, tied: bool) -> None:
    """What save_pretrained writes, which leaves out a tied head, to Meta's names and back: the same model."""
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=DIM,
        intermediate_size=FFN,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "model")
    ckptfmt.convert(
        tmp_path / "model",
        tmp_path / "hf.ckpt",
        schema=("llama", "hf"),
        metadata={"config": {**CONFIG, "head_dim": config.head_dim}},
    )
    for version, before in (("meta", "hf"), ("meta-fused", "meta")):
        ckptfmt.migrate(tmp_path / f"{before}.ckpt", tmp_path / f"{version}.ckpt", "example:llama", schema=version)
    meta = ckptfmt.load(tmp_path / "meta.ckpt")
    assert ("output.weight" in meta) is not tied
    for version in ("meta", "meta-fused"):
        back = tmp_path / f"back-{version}.ckpt"
        ckptfmt.migrate(tmp_path / f"{version}.ckpt", back, "example:llama", schema="hf", down=True)
        (tmp_path / f"again-{version}").mkdir()
        config.save_pretrained(tmp_path / f"again-{version}")
        ckptfmt.convert(back, tmp_path / f"again-{version}" / "model.safetensors")
        again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / f"again-{version}").eval()
        tokens = torch.arange(12).reshape(2, 6)
        with torch.no_grad():
            assert torch.equal(model(tokens).logits, again(tokens).logits)


def test_llama_with_both_names_of_a_tied_head(tmp_path: Path) -> None:
    tree = llama()
    tree["lm_head.weight"] = tree["model.embed_tokens.weight"]
    metadata = {"config": CONFIG}
    _, meta, fused = there_and_back(tmp_path, tree, "llama.json", ["hf", "meta", "meta-fused"], metadata=metadata)
    for found in (meta, fused):
        assert found["output.weight"] is found["tok_embeddings.weight"]


def test_gpt2_with_its_optimizer(tmp_path: Path) -> None:
    n = 48
    shapes = {"transformer.wte.weight": (90, n), "transformer.wpe.weight": (64, n), "transformer.ln_f.weight": (n,)}
    for i in range(3):
        for layer, shape in {"attn.c_attn": (n, 3 * n), "attn.c_proj": (n, n), "mlp.c_fc": (n, 4 * n)}.items():
            shapes |= {f"transformer.h.{i}.{layer}.weight": shape, f"transformer.h.{i}.{layer}.bias": shape[1:]}
        shapes |= {f"transformer.h.{i}.mlp.c_proj.weight": (4 * n, n), f"transformer.h.{i}.ln_1.weight": (n,)}
    model = {name: weights(*shape) for name, shape in shapes.items()}
    model["lm_head.weight"] = model["transformer.wte.weight"]
    moments = {
        moment: {name: weights(*shape) for name, shape in shapes.items() if "wpe" not in name}  # a frozen parameter
        for moment in ("exp_avg", "exp_avg_sq")
    }
    tree = {"model": model, "optimizer": {**moments, "step": 10}}
    first, linear = there_and_back(tmp_path, tree, "gpt2.json", ["conv1d", "linear"])
    name = "transformer.h.2.attn.c_attn.weight"
    x = weights(n)
    np.testing.assert_allclose(linear["model"][name] @ x, x @ first["model"][name], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(linear["optimizer"]["exp_avg_sq"][name], moments["exp_avg_sq"][name].T)
    assert linear["model"]["lm_head.weight"] is linear["model"]["transformer.wte.weight"]
    assert linear["optimizer"]["step"] == 10


def test_mixtral(tmp_path: Path) -> None:
    experts, ffn, dim = 11, 24, 16  # more than ten experts: they are ordered as numbers
    tree = {}
    for i in range(2):
        block = f"model.layers.{i}.block_sparse_moe"
        tree[f"{block}.gate.weight"] = weights(experts, dim)
        for e in range(experts):
            tree[f"{block}.experts.{e}.w1.weight"] = weights(ffn, dim)
            tree[f"{block}.experts.{e}.w2.weight"] = weights(dim, ffn)
            tree[f"{block}.experts.{e}.w3.weight"] = weights(ffn, dim)
        tree[f"model.layers.{i}.self_attn.q_proj.weight"] = weights(dim, dim)
    metadata = {"config": {"intermediate_size": ffn}}
    first, stacked = there_and_back(tmp_path, tree, "mixtral.json", ["list", "stacked"], metadata=metadata)
    gate_up = stacked["model.layers.1.mlp.experts.gate_up_proj"]
    assert gate_up.shape == (experts, 2 * ffn, dim)
    one, three = (first[f"model.layers.1.block_sparse_moe.experts.10.w{k}.weight"] for k in (1, 3))
    np.testing.assert_array_equal(gate_up[10], np.concatenate([one, three]))
    assert stacked["model.layers.0.mlp.experts.down_proj"].shape == (experts, dim, ffn)
    assert len(stacked) == 2 * 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_flax_and_torch_compute_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    linen = pytest.importorskip("flax.linen")
    jax = pytest.importorskip("jax")

    class Net(linen.Module):  # type: ignore[name-defined, misc]
        @linen.compact
        def __call__(self, x: Any) -> Any:
            for features in (6, 5):
                x = linen.Conv(features, (3, 3), padding="VALID")(x)
                x = linen.relu(linen.BatchNorm(use_running_average=True)(x))
            x = linen.Dense(7)(x.mean(axis=(1, 2)))
            return linen.Dense(4)(x)

    images = weights(2, 9, 9, 3)
    variables = jax.tree.map(np.asarray, Net().init(jax.random.key(0), images))
    variables["batch_stats"]["BatchNorm_0"]["mean"] = weights(6)
    variables["params"]["BatchNorm_1"]["scale"] = weights(5)
    _, state = there_and_back(tmp_path, variables, "flax.json", ["linen", "torch"])

    class Twin(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.convs = torch.nn.ModuleList([torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 5, 3)])
            self.norms = torch.nn.ModuleList([torch.nn.BatchNorm2d(n, track_running_stats=True) for n in (6, 5)])
            self.denses = torch.nn.ModuleList([torch.nn.Linear(5, 7), torch.nn.Linear(7, 4)])

        def forward(self, x: Any) -> Any:
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = torch.relu(norm(conv(x)))
            return self.denses[1](self.denses[0](x.mean(dim=(2, 3))))

    twin = Twin().eval()
    counters = {name: value for name, value in twin.state_dict().items() if name.endswith("num_batches_tracked")}
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()} | counters)
    with torch.no_grad():
        found = twin(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(found, np.asarray(Net().apply(variables, images)), atol=1e-5)
