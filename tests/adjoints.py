"""Computations with hand-written adjoints, and their gradients with every state kept: what others are compared with."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Pair(NamedTuple):
    a: Array
    n: int


class Chain:
    """Steps with dropout on a tree, some of whose arrays lie in memory as in Fortran. All is of one dtype."""

    def __init__(self, dtype: str = "f8", seed: int = 0, size: int = 4) -> None:
        self.dtype, self.size = np.dtype(dtype), size
        self.weights = np.random.default_rng(seed).standard_normal((size, size)).astype(dtype)
        self.calls = self.adjoint_calls = 0

    def initial(self) -> dict[str, Any]:
        x = np.linspace(-1, 1, self.size * 3, dtype=self.dtype).reshape(3, self.size).T
        return {
            "x": x,
            "pair": Pair(np.ones(3, self.dtype), 0),
            "rng": np.random.default_rng(7),
            "more": [None, "text"],
        }

    def _parts(self, state: dict[str, Any], number: int) -> tuple[Array, Array, Array]:
        mask = (state["rng"].random((self.size, 3)) < 0.8).astype(self.dtype)
        y = np.tanh(self.weights @ state["x"] + self.dtype.type(number % 3))
        return mask, y, state["x"].sum(axis=0, dtype=self.dtype)

    def step(self, state: dict[str, Any], number: int) -> dict[str, Any]:
        self.calls += 1
        mask, y, total = self._parts(state, number)
        pair = Pair(state["pair"].a * self.dtype.type(0.5) + total, state["pair"].n + 1)
        return {**state, "x": np.asfortranarray(y * mask), "pair": pair}

    def adjoint(self, state: dict[str, Any], number: int, after: dict[str, Array]) -> dict[str, Array]:
        self.adjoint_calls += 1
        mask, y, _ = self._parts(state, number)
        x = self.weights.T @ ((1 - y * y) * mask * after["x"]) + after["a"]
        return {"x": x, "a": after["a"] * self.dtype.type(0.5)}

    def seed(self, final: dict[str, Any]) -> dict[str, Array]:
        return {"x": 2 * final["x"], "a": np.cos(final["pair"].a)}

    def objective(self, state: dict[str, Any], steps: int) -> float:
        for number in range(steps):
            state = self.step(state, number)
        return float((state["x"] ** 2).sum() + np.sin(state["pair"].a).sum())

    def full(self, steps: int) -> tuple[dict[str, Array], dict[str, Any]]:
        """The gradient with every state kept, and the final state."""
        state, kept = self.initial(), []
        for number in range(steps):
            kept.append(copy.deepcopy(state))
            state = self.step(state, number)
        adjoint = self.seed(state)
        for number in reversed(range(steps)):
            adjoint = self.adjoint(kept[number], number, adjoint)
        return adjoint, state


class Counter:
    """The cheapest computation there is, whose adjoint says whether each step was gone back over in order."""

    def __init__(self) -> None:
        self.calls = 0

    def step(self, state: int, number: int) -> int:
        assert state == number
        self.calls += 1
        return number + 1

    def adjoint(self, state: int, number: int, after: int) -> int:
        assert state == number == after - 1
        return number


def bits(adjoint: dict[str, Array]) -> dict[str, tuple[str, bytes]]:
    return {name: (array.dtype.str, array.tobytes()) for name, array in adjoint.items()}
