"""What hostile checkpoints do to the reader in JavaScript: the scripts of tests/attacks, put to it. Each ends in a code
or in what is there, in bounded memory and time. [SEC-002] [SEC-003] [SEC-006] [LIM-003] [LIM-007] [LIM-008]"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attacking import attacks
from javascript import node

VECTORS = Path(__file__).parents[1] / "conformance" / "vectors"
SCRIPTS = [  # those whose checkpoints are of this format
    "big_integers",
    "compression_bombs",
    "deep_nesting",
    "hash_collisions",
    "huge_shapes",
    "links",
    "manifest_bombs",
    "overlapping_extents",
    "part_counts",
    "path_escape",
    "quadratic_names",
    "sparse_files",
    "special_files",
    "two_views",
]
LONG = ("deep_nesting", "hash_collisions", "part_counts", "quadratic_names")
LIBRARIES = [
    "codec-zstd-by-hand",
    "codec-blosc-by-hand",
    "codec-gzip-by-hand",
    "digest-blake3-file",
    "digest-sha256-file",
]


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[str, Path], None]]:
    ready = [str(VECTORS / name / "input.ckpt") for name in LIBRARIES]  # whose memory is not what is measured
    words = [node(), "--expose-gc", str(Path(__file__).with_name("js_hostile.mjs")), *ready]
    with attacks(CKPTFMT_ATTACKED=shlex.join(words)) as run:
        yield run


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")
@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in SCRIPTS]
)
def test_attack(script: str, tmp_path: Path, run: Callable[[str, Path], None]) -> None:
    run(script, tmp_path)
