"""Ranks of torch.distributed over gloo: each a process of its own, a fork of one that runs a file of tests and has
imported what is slow to import."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

Cases = Mapping[str, Callable[[Path, int], None]]  # what a rank does, given the folder and its number


def launch(program: str, case: str, size: int, folder: Path) -> list[tuple[int, str]]:
    """Run a case of a file on `size` ranks; gives each rank's exit status and last words."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, program, case, str(folder), str(size)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            answer, words = process.communicate(timeout=240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, words
    return [(status, text) for status, text in json.loads(answer)]


def main(cases: Cases, imported: Collection[str], alone: Collection[str] = ()) -> None:
    """Start the ranks of the case that the command line names, and wait for them; prints what each ended with and said.
    Those of the cases `alone` do not wait for each other at the end."""
    case, folder, size = sys.argv[1:]
    for name in imported:
        import_module(name)
    import_module("torch").set_num_threads(1)
    with ExitStack() as files:
        said = [files.enter_context(tempfile.TemporaryFile()) for _ in range(int(size))]
        ranks = [started(cases[case], folder, rank, said, together=case not in alone) for rank in range(int(size))]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        for words in said:
            words.seek(0)
        answer = [[n, words.read().decode(errors="replace")] for n, words in zip(statuses, said, strict=True)]
    print(json.dumps(answer))


def started(work: Any, folder: str, rank: int, said: list[Any], *, together: bool) -> int:
    """The process of a rank."""
    process = os.fork()
    if process == 0:
        for stream in (1, 2):
            os.dup2(said[rank].fileno(), stream)
        try:
            take_part(work, folder, rank, len(said), together)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)
    return process


def take_part(work: Any, folder: str, rank: int, size: int, together: bool) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    work(Path(folder), rank)
    if together:
        dist.barrier()
    sys.stdout.flush()
    gc.collect()  # a writer whose save failed removes its temporary when it goes
    os._exit(0)  # at a usual end threads of torch's own, now and then, abort the process
