"""The states that are saved: names, shapes and values, the same in every process that asks.

Values come from one seeded pool of normal numbers, so a process that checks a loaded tensor
builds just that tensor and not the whole state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SEED = 20_240_229
# More than any compressor's chunk or window, so that a repeated pool is not an easy match.
POOL_VALUES = 16 << 20


@dataclass(frozen=True)
class State:
    """A flat tree of equally typed tensors."""

    name: str
    title: str
    dtype: np.dtype[Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def nbytes(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values()) * self.dtype.itemsize

    @cached_property
    def _pool(self) -> Array:
        values = np.random.default_rng(SEED).standard_normal(POOL_VALUES, dtype=np.float32)
        values *= np.float32(0.02)
        return values.astype(self.dtype, copy=False)

    @cached_property
    def _starts(self) -> dict[str, int]:
        starts, position = {}, 0
        for name, shape in self.shapes.items():
            starts[name] = position % POOL_VALUES
            position += prod(shape)
        return starts

    def array(self, name: str) -> Array:
        """The values of one tensor."""
        out: Array = np.empty(self.shapes[name], self.dtype)
        flat, done, start = out.reshape(-1), 0, self._starts[name]
        while done < flat.size:
            piece = self._pool[start : start + flat.size - done]
            flat[done : done + piece.size] = piece
            done, start = done + piece.size, 0
        return out

    def arrays(self) -> dict[str, Array]:
        """All tensors, each in memory of its own."""
        return {name: self.array(name) for name in self.shapes}

    def probes(self) -> tuple[str, ...]:
        """The few tensors whose bytes are compared after each load."""
        names = list(self.shapes)
        return tuple(names[index] for index in (0, len(names) // 2, len(names) - 2, len(names) - 1))

    def excerpt(self) -> State:
        """A few megabytes of the same kind, to warm a contender up with."""
        rows = {name: (64, *self.shapes[name][1:]) for name in self.probes()}
        return State(self.name, self.title, self.dtype, rows)


def _llama(layers: int, vocabulary: int, width: int, hidden: int, keys: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a TinyLlama-like model: nine tensors a layer and three around them."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (width, width)
        shapes[f"{prefix}.self_attn.k_proj.weight"] = (keys, width)
        shapes[f"{prefix}.self_attn.v_proj.weight"] = (keys, width)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (width, width)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (hidden, width)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (hidden, width)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (width, hidden)
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    shapes["lm_head.weight"] = (vocabulary, width)
    return shapes


def _small(count: int) -> dict[str, tuple[int, ...]]:
    """Tensors of 2 KB each, as optimizers and norms leave behind."""
    return {f"block.{index:05d}.scale": (512,) for index in range(count)}


# What the slice benchmark reads: about 1 % of this tensor's rows.
SLICED = "model.embed_tokens.weight"


def slice_rows(state: State) -> tuple[int, int]:
    """First and last row (excluded) of the slice, well inside the tensor."""
    rows = state.shapes[SLICED][0]
    return rows // 2, rows // 2 + rows // 100


def llama(*, quick: bool) -> State:
    """A Llama-shaped state: 201 bfloat16 tensors, 2.2 GB (quick: 0.14 GB)."""
    shapes = _llama(22, 8000, 512, 1408, 64) if quick else _llama(22, 32000, 2048, 5632, 256)
    return State("llama", "Llama-shaped", np.dtype(ml_dtypes.bfloat16), shapes)


def small(*, quick: bool) -> State:
    """Many small float32 tensors: 20,000 (quick: 1,000)."""
    return State("small", "many small tensors", np.dtype(np.float32), _small(1000 if quick else 20_000))


STATES = {"llama": llama, "small": small}
