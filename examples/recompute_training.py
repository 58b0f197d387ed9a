"""Train a deep residual network on the digits of scikit-learn with every activation kept, and with few of them: the
same losses to the bit, in less than a third of the memory.

    python examples/recompute_training.py
"""

from __future__ import annotations

import argparse
import tracemalloc
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from ckptfmt.recompute import gradient

Array = np.ndarray[Any, Any]
WIDTH, CLASSES, RATE = 64, 10, 0.05


class Network:
    """Layers x + tanh(x w) / depth, and a softmax at the end."""

    def __init__(self, depth: int) -> None:
        rng = np.random.default_rng(0)
        self.depth = depth
        self.layers = rng.standard_normal((depth, WIDTH, WIDTH)) / WIDTH**0.5
        self.head = rng.standard_normal((WIDTH, CLASSES)) / WIDTH**0.5

    def layer(self, x: Array, number: int) -> Array:
        return x + np.tanh(x @ self.layers[number]) / self.depth  # type: ignore[no-any-return]

    def layer_adjoint(self, x: Array, number: int, after: dict[str, Array]) -> dict[str, Array]:
        """The adjoint before a layer, of its input and the adjoint after it; gradients of parameters stand in it."""
        y = np.tanh(x @ self.layers[number])
        inner = (1 - y * y) * after["x"] / self.depth
        after["layers"][number] = x.T @ inner
        return {**after, "x": after["x"] + inner @ self.layers[number].T}

    def loss(self, x: Array, labels: Array) -> tuple[float, dict[str, Array]]:
        """The loss of the last activations, and its adjoint."""
        scores = x @ self.head
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances = scores / scores.sum(axis=1, keepdims=True)
        value = -np.log(chances[np.arange(len(labels)), labels]).mean()
        chances[np.arange(len(labels)), labels] -= 1
        chances /= len(labels)
        gradients = {"layers": np.zeros_like(self.layers), "head": x.T @ chances}
        return float(value), {"x": chances @ self.head.T, **gradients}


def trained(depth: int, rounds: int, **options: Any) -> tuple[list[float], int]:
    """The losses of a training, and its peak of memory in bytes, parameters and data aside."""
    digits = load_digits()
    images, labels = digits.data[:600] / 16, digits.target[:600]
    network = Network(depth)
    losses: list[float] = []

    def seed(final: Array) -> dict[str, Array]:
        loss, adjoint = network.loss(final, labels)
        losses.append(loss)
        return adjoint

    tracemalloc.start()
    for _ in range(rounds):
        found = gradient(network.layer, network.layer_adjoint, images, depth, seed, **options).adjoint
        network.layers -= RATE * found["layers"]
        network.head -= RATE * found["head"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return losses, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=12, help="activations that are kept")
    asked = parser.parse_args()
    full, most = trained(asked.depth, asked.rounds, memory=asked.depth, schedule="memory")
    few, least = trained(asked.depth, asked.rounds, memory=asked.memory)
    for number, (one, other) in enumerate(zip(full, few, strict=True)):
        print(f"round {number}: loss {one:.6f} with all activations, {other:.6f} with {asked.memory}")
    print(f"the same to the bit: {full == few}")
    print(f"memory: {most / 2**20:.1f} MiB with all, {least / 2**20:.1f} MiB with {asked.memory}, {least / most:.0%}")


if __name__ == "__main__":
    main()
