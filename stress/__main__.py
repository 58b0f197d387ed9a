"""`python -m stress NAME`: runs of minutes that try to break a promise of docs/promises.md. The test suite has a short
one of each."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

RUNS = {
    "crash-states": "every operation that changes a disk, and what a power loss may leave of it at any moment",
    "faults": "a disk that fails, at every call of everything that changes it or reads from it",
    "sigkill": "saves that are killed at random moments",
    "recompute": "gradients that are killed at random moments, and go on",
    "writers": "processes that write for a manager and are killed at random moments",
    "replicas": "runs with replicas in memory that are killed at random moments, and whose replicas are damaged",
    "gc": "everything that changes a disk, beside collections of garbage by any clock",
    "races": "many writers at once on one path",
    "changes": "memory that others change while it is saved",
    "bitflips": "single flipped bits",
    "interrupts": "KeyboardInterrupt at every line and operation of a manager's calls",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    runs = parser.add_subparsers(dest="name", required=True)
    for name, text in RUNS.items():
        run = runs.add_parser(name, help=text, description=text)
        run.add_argument("--seed", type=int, default=0, help="of everything that is random")
        run.add_argument("--count", type=int, help="how many, instead of what docs/promises.md says")
        run.add_argument("--folder", type=Path, help="where to work; the file system there is what is tested")
    asked = parser.parse_args()
    module = importlib.import_module(f".{asked.name.replace('-', '_')}", __package__)
    count = {} if asked.count is None else {"count": asked.count}
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ckptfmt-stress-", dir=asked.folder) as folder:
        result = module.run(Path(folder), seed=asked.seed, **count)
    for line in result.bad[:20]:
        print("BAD", line)
    print(f"{asked.name}: {result.counts}, {len(result.bad)} bad; seed {asked.seed}, {time.monotonic() - start:.0f} s")
    return 1 if result.bad else 0


if __name__ == "__main__":
    sys.exit(main())
