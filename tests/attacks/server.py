"""Runs attack scripts, each in a fork of this process, which has imported what all of them import and done nothing
else: so that they do not import it one by one. Each line of stdin is a script and the folder that it is run in, with a
tab between; its words go into a file there, and its exit status is answered."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import attack  # noqa: F401


def run(script: str, folder: str) -> None:
    words = os.open(Path(folder) / "words", os.O_WRONLY | os.O_CREAT)
    os.dup2(words, 1)
    os.dup2(words, 2)
    os.mkdir(Path(folder) / "here")
    os.chdir(Path(folder) / "here")
    runpy.run_path(str(Path(__file__).with_name(f"{script}.py")), run_name="__main__")


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(*line.rstrip("\n").split("\t"))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
