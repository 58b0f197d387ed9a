"""Folders from a stranger, given to what looks through folders: `gc`, a manager, `verify_folder`, `convert_each`, the
command line. Names without end, steps that nobody counts to, links, pipes and depths in the place of steps.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from attack import attempt, folder
from commands import run

import ckptfmt
import ckptfmt.conversion.batch
import ckptfmt.maintenance.garbage
import ckptfmt.maintenance.verification_of_folders
import ckptfmt.manager
from ckptfmt.storage.folders import entries_below

LEFT = ".{}.0123456789ab.ckptfmt-tmp"  # what a temporary of a save is called
STEP = "step-{:010}.ckpt"
TEXT = "\x1b]0;owned\x07\x1b[2J\r\n\u202egnp.exe\x7f"
TREE = {"w": np.arange(4.0)}


def deep(path: Path, depth: int = 1100) -> None:
    """Folders in folders; by steps, as no single path may be so long."""
    path.mkdir()
    here = os.getcwd()
    os.chdir(path)
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(here)


def odd_names(path: Path) -> None:
    for number in range(1_000):
        (path / f"{number}{'x' * 200}").touch()
    for name in (TEXT, "step-", "step--0000000001.ckpt", "step-00000000０1.ckpt", "step-0000000001.ckpt ", b"\xff\xfe"):
        os.close(os.open(os.path.join(os.fsencode(path), os.fsencode(name)), os.O_CREAT))


def many_steps(path: Path) -> None:
    for number in range(500):
        (path / STEP.format(number)).touch()


def huge_steps(path: Path) -> None:
    for exponent in (10, 19, 20, 40, 200):
        ckptfmt.save(path / STEP.format(10**exponent), TREE, durable=False)
    ckptfmt.save(path / STEP.format(1), TREE, durable=False, metadata={"ckptfmt.run": {"step": 10**30, "metrics": 5}})


def specials(path: Path, name: str = STEP) -> None:
    os.mkfifo(path / name.format(1))
    (path / name.format(2)).symlink_to("/dev/zero")
    (path / name.format(3)).symlink_to(path / name.format(3))
    (path / name.format(4)).symlink_to(path)
    (path / name.format(5)).mkdir()
    os.mkfifo(path / name.format(5) / "COMMIT")
    here = os.getcwd()
    os.chdir(path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
    os.chdir(here)
    (path / "s").rename(path / name.format(6))
    (path / name.format(7)).mkdir()
    (path / name.format(7) / "COMMIT").symlink_to("/dev/zero")


def temporaries(path: Path) -> None:
    specials(path, LEFT.replace("{}", STEP))
    for number in range(200):
        (path / LEFT.format(f"{number}{TEXT}")).mkdir()
    for number in range(200):
        (path / f"session-{number:016x}").mkdir()
    os.mkfifo(path / "join-0123456789abcdef")
    (path / ".kept.json.ckptfmt-tmp").symlink_to("/dev/zero")


def notes(path: Path) -> None:
    ckptfmt.save(path / STEP.format(1), TREE, durable=False)
    (path / ".kept.json").write_text("[" * 100_000)
    (path / "kept.json").write_text("9" * 100_000)
    os.mkfifo(path / ".kept.json.ckptfmt-tmp")


def flax_steps(path: Path) -> None:
    for text in ("1e400", "nan", "-inf", "9" * 200, "1e-400", "0x1", "1_0", "\u0661", "", "-0"):
        (path / f"checkpoint_{text}").write_bytes(b"\x81\xa1a\xc1")
    os.mkfifo(path / "checkpoint_7")
    (path / "checkpoint_8").mkdir()


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "1,000 odd names": odd_names,
    "500 empty steps": many_steps,
    "steps up to 10^200": huge_steps,
    "pipes, devices and circles as steps": specials,
    "pipes, devices and circles as temporaries": temporaries,
    "notes that are none": notes,
    "steps of flax that are none": flax_steps,
    "1,100 folders in each other": lambda path: deep(path / "d"),
    "1,100 folders in each other as a step": lambda path: deep(path / STEP.format(1)),
    "1,100 folders in each other as a temporary": lambda path: deep(path / LEFT.format("x")),
    "1,100 folders in each other as a meeting": lambda path: deep(path / "session-0123456789abcdef"),
}


def looked_through(path: Path) -> Any:
    ckptfmt.gc(path, grace=0, recursive=True)


def verified(path: Path) -> Any:
    ckptfmt.verify_folder(path, recursive=True)


def converted(path: Path) -> Any:
    try:
        ckptfmt.convert_each(path, path.parent / "converted", durable=False)
    finally:
        shutil.rmtree(path.parent / "converted", ignore_errors=True)


def command_line(path: Path) -> Any:
    run("gc", "--recursive", path)
    run("gc", "--json", path)
    run("verify", "--recursive", path)
    run("convert", "--each", path, path.parent / "converted")
    shutil.rmtree(path.parent / "converted", ignore_errors=True)


def managed(path: Path) -> Any:
    _manage(ckptfmt.CheckpointManager(path, keep=2, durable=False))


def managed_as_flax(path: Path) -> Any:
    _manage(ckptfmt.manager.FlaxCheckpointManager(path, keep=2, durable=False))


def _manage(run: ckptfmt.CheckpointManager) -> None:
    with run as manager:
        manager.steps(), manager.latest(), manager.damaged(), manager.plan(), repr(manager)
        for which in ("latest", 1, 10**40, -1):
            try:
                manager.restore(which, fallback=which == "latest")
            except ckptfmt.CkptError as error:
                assert "\n" not in str(error)
        manager.save(10**9, TREE, overwrite=True)
        manager.prune()
        manager.gc()


def deleted(path: Path) -> Any:
    ckptfmt.gc(path, grace=0, recursive=True, delete=True)


ACTIONS = (looked_through, verified, converted, command_line, managed, managed_as_flax, deleted)


def main() -> None:
    with folder() as here:
        for title, fill in FOLDERS.items():
            path = here / "source"
            path.mkdir()
            fill(path)
            size = 512 * sum(1 for _ in entries_below(str(path)))
            attempt(title, path, actions=ACTIONS, size=size)
            subprocess.run(["rm", "-rf", path], check=True)  # which goes deeper than Python


if __name__ == "__main__":
    main()
