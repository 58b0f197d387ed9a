"""Where tensors stand among layers, by their names alone."""

from __future__ import annotations

import pytest

from ckptfmt.reporting.layers import PARTS, LayerPlace, layer_place, parts, stacks

PLACES = {
    "model/layers.3.mlp.experts.7.up": ("model.layers", "model.layers.3", "mlp.experts.*.up"),
    "model.layers.10.self_attn.q_proj.weight": ("model.layers", "model.layers.10", "self_attn.q_proj.weight"),
    "transformer/h/0/ln_1/weight": ("transformer.h", "transformer.h.0", "ln_1.weight"),
    "layer1.0.conv2.weight": ("layer*", "layer1.0", "conv2.weight"),
    "params/Dense_3/kernel": ("params.Dense_*", "params.Dense_3", "kernel"),
    "encoder/block-12/w": ("encoder.block-*", "encoder.block-12", "w"),
    "optimizer/state/4/exp_avg": ("optimizer.state", "optimizer.state.4", "exp_avg"),
    "optimizer/state/'4'/exp_avg": ("optimizer.state", "optimizer.state.4", "exp_avg"),
    "0/w": ("(root)", "0", "w"),
    "layers/5": ("layers", "layers.5", "(itself)"),
    "wte": ("", "", "wte"),
    "conv1": ("", "", "conv1"),
    "": ("", "", ""),
    "/": ("", "", "."),
}


@pytest.mark.parametrize("label", PLACES)
def test_places(label: str) -> None:
    assert layer_place(label) == LayerPlace(*PLACES[label])


def test_layers_are_in_their_order_and_the_largest_stack_first() -> None:
    labels = [f"b.{i}.{kind}" for i in (10, 2, 1) for kind in ("x", "y")] + ["a.0.x", "a.1.x", "c.0.x", "w"]
    assert stacks(map(layer_place, labels)) == {
        "b": (["b.1", "b.2", "b.10"], ["x", "y"]),
        "a": (["a.0", "a.1"], ["x"]),
    }  # of c there is one layer, which is no stack


def test_names_of_very_many_parts_are_bounded() -> None:
    assert len(parts("." * 100_000)) == PARTS
