"""Coverage-guided fuzzing with atheris: `python -m tests.fuzz TARGET FOLDER [options of libFuzzer]`.

TARGET is `checkpoint` or a foreign format; FOLDER keeps the corpus, which is seeded if it is empty. See README.md here.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from random import Random

import atheris

READ = ("format", "layouts", "frameworks", "reading", "maintenance", "conversion")  # the rooms in which bytes are read

assert "ckptfmt" not in sys.modules  # else it would not be instrumented, and nothing guided
with atheris.instrument_imports(include=["ckptfmt"], enable_loader_override=False):
    import ckptfmt

    for room in READ:  # all of it, as much is imported when it is first used
        for module in pkgutil.walk_packages([f"{ckptfmt.__path__[0]}/{room}"], f"ckptfmt.{room}."):
            importlib.import_module(module.name)

from . import mutations, seeds, targets  # noqa: E402 - after what is to be instrumented


def main() -> None:
    name, folder = sys.argv[1:3]
    corpus = Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for seed, data in seeds.checkpoints() if name == "checkpoint" else seeds.foreign(name):
            (corpus / seed).write_bytes(data)
    target = targets.checkpoint if name == "checkpoint" else targets.importer(name)
    change = mutations.bundle if name == "checkpoint" else mutations.FOREIGN.get(name, mutations.any_bytes)

    def mutated(data: bytes, size: int, seed: int) -> bytes:
        return change(data, Random(seed))[:size]

    target(b"")  # what is made once is made before memory is watched
    for path in corpus.iterdir():
        target(path.read_bytes())
    with targets.in_this_thread():
        options = ["-max_len=65536", "-timeout=300", "-rss_limit_mb=4096", "-print_final_stats=1", "-reload=0"]
        atheris.Setup([sys.argv[0], folder, *options, *sys.argv[3:]], target, custom_mutator=mutated)
        atheris.Fuzz()


main()
