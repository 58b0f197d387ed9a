"""Keys and shapes that were chosen so that all of them collide in a hash table, where each look takes as long as there
are keys. Python hashes ints modulo 2^61 - 1, and tuples of them in a way that anyone can compute. [LIM-007]"""

from __future__ import annotations

from typing import Any

import numpy as np
from attack import OPENED, attempt, folder, hostile

PRIME = (1 << 61) - 1
MASK = (1 << 64) - 1
P1, P2, P5 = 11400714785074694791, 14029467366897019727, 2870177450012600261


def same_hash(count: int) -> list[Any]:
    """Int keys with the hash 7."""
    keys = [7 + number * PRIME for number in range(1, count + 1)]
    return [key if key < 1 << 64 else ["int", key.to_bytes(key.bit_length() // 8 + 1, "big")] for key in keys]


def long_chain(bits: int) -> list[int]:
    """Int keys below 2^64 for a table of 2^bits: half of them lie in a chain that the others follow to its end."""
    size, keys, slot = 1 << bits, [], 1
    for _ in range(size // 3):
        keys.append(slot)
        slot = (5 * slot + 1) % size
    walkers = []
    number = 1
    while len(walkers) < size // 3 - 8:
        walkers.append(number << (bits + 5 * 6) | 1)
        number += 1
    return keys + [key for key in walkers if key < 1 << 63]


def colliding_shapes(count: int) -> list[list[int]]:
    """Shapes (0, a, b) whose tuples have one hash (xxHash of CPython, inverted for b)."""

    def step(state: int, lane: int) -> int:
        state = (state + lane * P2) & MASK
        return ((state << 31 | state >> 33) * P1) & MASK

    inverse1, inverse2 = pow(P1, -1, 1 << 64), pow(P2, -1, 1 << 64)
    found: list[list[int]] = []
    a = 1
    while len(found) < count:
        state = step(step(P5, 0), a)
        wanted = (12345 * inverse1) & MASK
        wanted = (wanted >> 31 | wanted << 33) & MASK
        b = ((wanted - state) * inverse2) & MASK
        if b < PRIME:
            found.append([0, a, b])
        a += 1
    assert len({hash(tuple(shape)) for shape in found}) == 1, "the hash of tuples has changed"
    return found


def main() -> None:
    with folder() as here:
        for count in (1000, 50_000):
            keys = same_hash(count)

            def collide(document: dict[str, Any], keys: list[Any] = keys) -> None:
                document["tree"] = ["dict", [*keys, "w", "x"], [*[None] * len(keys), ["tensor", 0], ["tensor", 1]]]
                document["metadata"] = ["dict", keys, [None] * len(keys)]

            path = hostile(here / f"keys-{count}.ckpt", collide, layout="loose")
            codes = (OPENED,) if count < 10_000 else ("limit-exceeded",)
            attempt(f"{count:,} int keys with one hash", path, *codes)
        chain = long_chain(17)

        def walk(document: dict[str, Any]) -> None:
            document["metadata"] = ["dict", chain, [None] * len(chain)]

        path = hostile(here / "chain.ckpt", walk, layout="loose")
        attempt(f"{len(chain):,} int keys of 64 bits in one chain", path, OPENED, "limit-exceeded")
        shapes = colliding_shapes(10_000)
        names = [f"t{number}" for number in range(len(shapes))]

        def reshape(document: dict[str, Any]) -> None:
            document["tensors"]["shape"] = shapes
            document["tensors"]["grid"] = [[1, 1, 1]] * len(shapes)

        path = hostile(here / "shapes.ckpt", reshape, {name: np.zeros((0, 1, 1)) for name in names})
        attempt("10,000 shapes with one hash", path, OPENED, "limit-exceeded", "frame-digest")


if __name__ == "__main__":
    main()
