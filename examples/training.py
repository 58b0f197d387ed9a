"""A digit classifier trained in plain NumPy that can stop at any moment and go on as if nothing had happened.

    python examples/training.py --checkpoint digits.ckpt --steps 160 --save-every 20

Run it, kill it, run the same command again: it resumes from the checkpoint. What a run needs in order to resume to
the bit is all in `Training.tree()`: the parameters, Adam's moments and step count, and the random generator's state.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import ckptfmt

Floats = NDArray[np.float32]
Layers = list[dict[str, Floats]]

SIZES = (64, 2048, 1024, 10)
BATCH = 64
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
TRAIN_IMAGES = 1500  # of 1,797; the others are for the test


@dataclass
class Training:
    """A run in progress. `m` and `v` are Adam's moments, arranged like `layers`."""

    layers: Layers
    m: Layers
    v: Layers
    step: int
    rng: np.random.Generator

    @classmethod
    def start(cls, seed: int) -> Training:
        """A new run: He initialisation, moments at zero."""
        rng = np.random.default_rng(seed)
        layers: Layers = [
            {
                "weight": rng.standard_normal((fan_in, fan_out), np.float32) * np.float32(np.sqrt(2 / fan_in)),
                "bias": np.zeros(fan_out, np.float32),
            }
            for fan_in, fan_out in pairwise(SIZES)
        ]
        return cls(layers, _zeros_like(layers), _zeros_like(layers), 0, rng)

    @classmethod
    def resume(cls, path: Path) -> Training:
        """The run that a checkpoint holds."""
        tree = ckptfmt.load(path)
        rng = np.random.default_rng()
        rng.bit_generator.state = tree["rng"]
        optimizer = tree["optimizer"]
        return cls(tree["model"], optimizer["m"], optimizer["v"], optimizer["step"], rng)

    def tree(self) -> dict[str, Any]:
        """The run as a tree of arrays and plain values, ready to be saved."""
        return {
            "model": self.layers,
            "optimizer": {"name": "adam", "step": self.step, "m": self.m, "v": self.v},
            "rng": self.rng.bit_generator.state,  # a nested dict with 128-bit integers
        }

    def save(self, path: Path, **metrics: float) -> None:
        """Replace the checkpoint at `path`, all at once: whoever looks sees the old one or the new one."""
        ckptfmt.save(path, self.tree(), overwrite=True, metadata={"step": self.step, **metrics})

    def advance(self, images: Floats, labels: NDArray[np.int64]) -> float:
        """One step of Adam on a random batch; gives the batch's cross entropy."""
        batch = self.rng.integers(0, len(images), BATCH)
        activations = _forward(self.layers, images[batch])
        probabilities = _softmax(activations[-1])
        loss = -np.log(probabilities[np.arange(BATCH), labels[batch]] + EPSILON).mean()

        self.step += 1
        rate = np.float32(RATE * np.sqrt(1 - BETA2**self.step) / (1 - BETA1**self.step))
        error = probabilities
        error[np.arange(BATCH), labels[batch]] -= 1
        error /= BATCH
        for i in reversed(range(len(self.layers))):
            gradients = {"weight": activations[i].T @ error, "bias": error.sum(axis=0)}
            error = (error @ self.layers[i]["weight"].T) * (activations[i] > 0)
            for name, gradient in gradients.items():
                _adam(self.layers[i][name], gradient, self.m[i][name], self.v[i][name], rate)
        return float(loss)

    def accuracy(self, images: Floats, labels: NDArray[np.int64]) -> float:
        """The share of images that are recognised."""
        return float((_forward(self.layers, images)[-1].argmax(axis=1) == labels).mean())


def _forward(layers: Layers, images: Floats) -> list[Floats]:
    """The input, the activations of each hidden layer, and the scores."""
    activations = [images]
    for layer in layers[:-1]:
        activations.append(np.maximum(activations[-1] @ layer["weight"] + layer["bias"], 0))
    return [*activations, activations[-1] @ layers[-1]["weight"] + layers[-1]["bias"]]


def _softmax(scores: Floats) -> Floats:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def _adam(parameter: Floats, gradient: Floats, m: Floats, v: Floats, rate: np.float32) -> None:
    """Update a parameter and its moments in place."""
    m += (1 - BETA1) * (gradient - m)
    v += (1 - BETA2) * (gradient * gradient - v)
    parameter -= rate * m / (np.sqrt(v) + EPSILON)


def _zeros_like(layers: Layers) -> Layers:
    return [{name: np.zeros_like(array) for name, array in layer.items()} for layer in layers]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train, save now and then, and resume if there is a checkpoint.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--save-every", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    run = Training.resume(options.checkpoint) if options.checkpoint.exists() else Training.start(options.seed)
    while run.step < options.steps:
        loss = run.advance(images[:TRAIN_IMAGES], labels[:TRAIN_IMAGES])
        if run.step % options.save_every == 0 or run.step == options.steps:
            accuracy = run.accuracy(images[TRAIN_IMAGES:], labels[TRAIN_IMAGES:])
            run.save(options.checkpoint, loss=loss, accuracy=accuracy)


if __name__ == "__main__":
    main()
