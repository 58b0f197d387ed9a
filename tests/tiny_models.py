"""Models of transformers with random weights, of a few kilobytes: tied, of two parts, with buffers, of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers

IDS = torch.arange(8)[None]
IMAGE = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)


class Tiny(NamedTuple):
    """A class of models, the class among those that choose by themselves, a configuration, and what goes in."""

    kind: Any
    auto: Any
    config: Callable[[], Any]
    inputs: dict[str, torch.Tensor]


_SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
MODELS: dict[str, Tiny] = {
    "gpt2": Tiny(
        transformers.GPT2LMHeadModel,
        transformers.AutoModelForCausalLM,
        lambda: transformers.GPT2Config(
            vocab_size=32, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        ),
        {"input_ids": IDS},
    ),
    "llama": Tiny(
        transformers.LlamaForCausalLM,
        transformers.AutoModelForCausalLM,
        lambda: transformers.LlamaConfig(vocab_size=32, num_key_value_heads=1, **_SMALL),
        {"input_ids": IDS},
    ),
    "bert": Tiny(
        transformers.BertForMaskedLM,
        transformers.AutoModelForMaskedLM,
        lambda: transformers.BertConfig(vocab_size=32, max_position_embeddings=8, **_SMALL),
        {"input_ids": IDS},
    ),
    "t5": Tiny(
        transformers.T5ForConditionalGeneration,
        transformers.AutoModelForSeq2SeqLM,
        lambda: transformers.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2),
        {"input_ids": IDS, "decoder_input_ids": IDS},
    ),
    "resnet": Tiny(
        transformers.ResNetForImageClassification,
        transformers.AutoModelForImageClassification,
        lambda: transformers.ResNetConfig(
            embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
        ),
        {"pixel_values": IMAGE},
    ),
}


def made(name: str) -> Any:
    """A model with random weights."""
    torch.manual_seed(0)
    return MODELS[name].kind._from_config(MODELS[name].config()).eval()


def logits(name: str, model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**MODELS[name].inputs).logits
    return found
