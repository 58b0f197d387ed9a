"""The demo: train, kill the run in the middle of a save, resume to the bit, and look at the checkpoint from all sides.

    python examples/digits.py

Every line that begins with a tick was checked just now; the demo ends with exit status 1 at the first that fails.
The training itself is in training.py beside this file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import zarr
from rich.console import Console
from zarr.storage import ZipStore

import ckptfmt

STEPS, SAVE_EVERY = 120, 15
LAYER = "model/1/weight"  # the largest: 2048 x 1024 float32, two blocks of 4 MiB

console = Console(markup=False, highlight=False)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ckptfmt-demo-") as folder:
        reference, checkpoint, damaged = (Path(folder, f"{name}.ckpt") for name in ("reference", "digits", "damaged"))

        chapter(1, f"Train a digit classifier, saving every {SAVE_EVERY} steps")
        train(reference)
        show_contents(reference)

        chapter(2, "Train again, and kill the run in the middle of a save")
        temporary = train_and_kill(checkpoint)
        show_what_is_left(checkpoint, temporary)

        chapter(3, "Resume, and compare with the run that nobody killed")
        say("The same command again; the temporary is in nobody's way.")
        train(checkpoint)
        compare_runs(reference, checkpoint)

        chapter(4, "Read a part of one layer")
        read_slice(checkpoint)

        chapter(5, "Open the same file with stock zarr-python")
        open_with_zarr(checkpoint)

        chapter(6, "Flip one bit")
        flip_a_bit(checkpoint, damaged)


# ---- training, in processes of its own


def training_command(checkpoint: Path) -> list[str]:
    script = Path(__file__).with_name("training.py")
    options = {"--checkpoint": checkpoint, "--steps": STEPS, "--save-every": SAVE_EVERY}
    return [sys.executable, str(script), *(str(word) for option in options.items() for word in option)]


def training_environment() -> dict[str, str]:
    """One thread for the linear algebra: to be equal to the bit, sums must be taken in one order."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def train(checkpoint: Path) -> None:
    """Train to the end, from the checkpoint if there is one."""
    with console.status("training …"):
        subprocess.run(training_command(checkpoint), env=training_environment(), check=True)


def train_and_kill(checkpoint: Path) -> Path:
    """Kill a run while it replaces its checkpoint; gives the temporary file that the save leaves behind.

    A save takes a few hundredths of a second and may be over before the signal arrives. Then no temporary is left,
    and the run is resumed for another try.
    """
    with console.status("training …"):
        while True:
            child = subprocess.Popen(training_command(checkpoint), env=training_environment())
            while child.poll() is None and not (checkpoint.exists() and temporaries(checkpoint)):
                time.sleep(0.0005)
            child.kill()  # SIGKILL: no handler runs, nothing is cleaned up
            killed = child.wait() == -signal.SIGKILL
            if left := temporaries(checkpoint):
                return left[0]
            if not killed:
                check("the run was killed in the middle of a save", False)


def temporaries(checkpoint: Path) -> list[Path]:
    """The temporary files that unfinished saves of this checkpoint have begun to fill."""
    with contextlib.suppress(FileNotFoundError):  # just published
        return [path for path in checkpoint.parent.glob(f".{checkpoint.name}.*.ckptfmt-tmp") if path.stat().st_size]
    return []


# ---- the chapters


def show_contents(path: Path) -> None:
    with ckptfmt.open(path) as ckpt:
        say(f"{ckpt.metadata['step']} steps; {ckpt.metadata['accuracy']:.1%} of the test images are recognised.")
    say(f"$ ckptfmt inspect {path.name} --depth 2")
    console.file.flush()  # before another process writes
    subprocess.run([sys.executable, "-m", "ckptfmt", "inspect", path, "--depth", "2"], check=True)
    report = ckptfmt.verify(path)
    check(f"every byte matches its digest: {report.blocks} blocks, and all that lies between them", report.ok)


def show_what_is_left(checkpoint: Path, temporary: Path) -> None:
    say("On the disk, after SIGKILL:")
    for path in (checkpoint, temporary):
        say(f"  {path.stat().st_size:12,} bytes  {path.name}")
    check("the signal hit during a save: its temporary file is still there", temporary.exists())
    error = refusal(temporary)
    check("no reader takes the temporary for a checkpoint", error is not None and error.code == "temporary")
    with ckptfmt.open(checkpoint) as ckpt:
        step = ckpt.metadata["step"]
        whole = ckpt.verify().ok and step == ckpt["optimizer/step"] and 0 < step < STEPS
    check(f"{checkpoint.name} is the whole checkpoint of the save before, at step {step}", whole)


def compare_runs(reference: Path, checkpoint: Path) -> None:
    with ckptfmt.open(reference) as one, ckptfmt.open(checkpoint) as other:
        equal = [one[path].read().tobytes() == other[path].read().tobytes() for path in one]
        same = list(one) == list(other) and all(equal)
        check(f"all {len(one)} tensors are equal to the bit", same)
        values = one["rng"] == other["rng"] and one["optimizer/step"] == other["optimizer/step"] == STEPS
        check("step count and random generator are equal", values)
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (reference, checkpoint))
    check("the two files are bit-identical: the same state always gives the same bytes. Their sha256:", first == second)
    say(first)


def read_slice(checkpoint: Path) -> None:
    size = checkpoint.stat().st_size
    whole = ckptfmt.load(checkpoint, select=LAYER)["model"][1]["weight"]
    with ckptfmt.open(checkpoint) as ckpt:
        check("opening the checkpoint reads no tensor", ckpt.bytes_read == 0)
        rows = ckpt[LAYER][500:600]
        check(f"rows 500 to 599 are right, {rows.nbytes:,} bytes", np.array_equal(rows, whole[500:600]))
        check(f"verified, they took one block: {ckpt.bytes_read:,} of {size:,} bytes", ckpt.bytes_read == 4 << 20)
    with ckptfmt.open(checkpoint, verify=False) as ckpt:
        equal = np.array_equal(ckpt[LAYER][500:600], rows)
        check(f"with verify=False, just {ckpt.bytes_read:,} bytes", equal and ckpt.bytes_read == rows.nbytes)


def open_with_zarr(checkpoint: Path) -> None:
    tree = ckptfmt.load(checkpoint)
    with ZipStore(checkpoint, mode="r") as store:
        group = zarr.open_group(store, path="tensors", mode="r")
        say(f'zarr.open_group(ZipStore("{checkpoint.name}"), path="tensors")')
        array = group[LAYER]
        same = isinstance(array, zarr.Array) and np.array_equal(array[:], tree["model"][1]["weight"])
        check(f"its {LAYER} is the same array, read without any code of ours", same)


def flip_a_bit(checkpoint: Path, damaged: Path) -> None:
    tensors = ckptfmt.load(checkpoint)
    data = bytearray(checkpoint.read_bytes())
    position = data.index(tensors["model"][1]["weight"].tobytes()) + 5_000_000  # tensors lie in the file as in memory
    data[position] ^= 1
    damaged.write_bytes(data)
    say(f"{damaged.name} is a copy with one bit changed at byte {position:,}, inside {LAYER}.")

    report = ckptfmt.verify(damaged)
    for damage in report.damage:
        say(f"ckptfmt.verify: {damage.message}")
    named = [(damage.code, damage.tensor) for damage in report.damage] == [("block-digest", LAYER)]
    check("the damage is found, and its tensor and block are named", named)

    error = refusal(damaged)
    check("loading it is refused", error is not None and error.code == "block-digest" and error.tensor == LAYER)
    with ckptfmt.open(damaged) as bad, ckptfmt.open(checkpoint) as good:
        others = [path for path in bad if path != LAYER]
        equal = all(np.array_equal(bad[path].read(), good[path].read()) for path in others)
    check(f"the other {len(others)} tensors still load, and are intact", equal)


def refusal(path: Path) -> ckptfmt.CkptError | None:
    """The error that loading raises, or None."""
    try:
        ckptfmt.load(path)
    except ckptfmt.CkptError as error:
        return error
    return None


# ---- printing


def chapter(number: int, title: str) -> None:
    console.print(f"\n{number}. {title}", style="bold cyan")


def say(text: str, margin: str = "   ", style: str | None = None) -> None:
    width, indent = min(console.width, 100), " " * len(margin)
    lines = textwrap.wrap(text, width, initial_indent=margin, subsequent_indent=indent, break_on_hyphens=False)
    console.print("\n".join(lines), style=style, soft_wrap=True)


def check(claim: str, holds: bool) -> None:
    """Print a claim that holds; end the demo at one that does not."""
    if not holds:
        say(f"FAILED: {claim}", " ✗ ", "bold red")
        sys.exit(1)
    say(claim, " ✓ ", "green")


if __name__ == "__main__":
    main()
