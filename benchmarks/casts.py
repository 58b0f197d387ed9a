"""`python -m benchmarks.casts`: arrays in memory as other dtypes, beside the cast of NumPy and ml_dtypes.

Interleaved rounds; a ratio is our time divided by theirs in the same round, so less is better. Theirs rounds float64
and int64 twice on the way to bfloat16 and float8, and counts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from benchmarks.results import Spread
from ckptfmt.format.casts import cast
from ckptfmt.format.dtypes import DTYPES

PAIRS = [
    ("float32", "bfloat16"),
    ("float64", "bfloat16"),
    ("int64", "bfloat16"),
    ("float32", "float8_e4m3fn"),
    ("float64", "float8_e4m3fn"),
    ("float32", "float16"),
    ("float64", "float32"),
    ("bfloat16", "float32"),
]


def timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@click.command()
@click.option("--elements", default=1 << 24, show_default=True, help="Of each array.")
@click.option("--rounds", default=9, show_default=True)
def main(*, elements: int, rounds: int) -> None:
    """Measure casts beside those of NumPy and ml_dtypes."""
    numbers = np.random.default_rng(1).standard_normal(elements) * 8
    for found, wanted in PAIRS:
        array, dtype = numbers.astype(DTYPES[found].numpy), DTYPES[wanted].numpy
        ratios = []
        for _ in range(rounds):
            theirs = timed(lambda: array.astype(dtype))  # noqa: B023
            ratios.append(timed(lambda: cast(array, dtype)) / theirs)  # noqa: B023
        click.echo(f"{found} to {wanted}: {Spread.of(ratios)}")


if __name__ == "__main__":
    main()
