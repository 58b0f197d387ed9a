"""`python -m benchmarks.patches`: what patches take, and how fast they are applied.

Sizes: a small GPT is trained with AdamW on the source text of torch, float32 with bfloat16 copies of its weights, as
mixed precision has them. Of a state after some steps, patches are made to the state a few steps later. Chances decide
nothing: seeds are fixed, though other processors round otherwise.

Speed: a patch of each size is applied to a base, beside a plain copy of the result; interleaved rounds, each apply in a
fresh process, the page cache warm. Nothing is made durable, as the copy is not. Last, what one slice reads.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.copying import copied, timed
from benchmarks.disk import remove
from benchmarks.results import Spread
from benchmarks.states import llama

TARGET = 0.7  # of the speed of a copy
WARM = 200  # steps before the states that are compared
SETTINGS = ((1e-6, 1, 0.007), (1e-5, 1, 0.037), (3e-4, 1, 0.20), (3e-4, 50, 0.46))  # rate, steps, size of the weights
MOMENT = (0.65, 0.80)  # of the second moment
CONTEXT, BATCH = 64, 8

PROGRAM = """
import json, sys, time
base, target, patch = sys.argv[1:]
import ckptfmt
import ckptfmt.patches
begin = time.perf_counter()
report = ckptfmt.apply(base, patch, target, durable=False)
seconds = time.perf_counter() - begin
assert report.identical
print(json.dumps(seconds))
"""


class Size(NamedTuple):
    """What one patch takes: bytes of chunks for each byte of the weights, of Adam's moments, and of the whole file."""

    weights: float
    first_moment: float
    second_moment: float
    file: float


class Trainer:
    """A small GPT that learns to write source text."""

    def __init__(self, width: int, layers: int) -> None:
        import torch
        from torch import nn

        torch.manual_seed(0)
        self.torch = torch
        block = nn.TransformerEncoderLayer(
            width, width // 32, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.model = nn.ModuleDict(
            {
                "tokens": nn.Embedding(256, width),
                "places": nn.Embedding(CONTEXT, width),
                "blocks": nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False),
                "out": nn.Linear(width, 256),
            }
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)
        files = sorted(Path(torch.__file__).parent.glob("*.py"))
        self.text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8).long()
        self.random = torch.Generator().manual_seed(0)

    def train(self, steps: int) -> None:
        torch, model = self.torch, self.model
        mask = torch.nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        for _ in range(steps):
            starts = torch.randint(len(self.text) - CONTEXT - 1, (BATCH,), generator=self.random).tolist()
            found = torch.stack([self.text[start : start + CONTEXT + 1] for start in starts])
            hidden = model["tokens"](found[:, :-1]) + model["places"](torch.arange(CONTEXT))
            logits = model["out"](model["blocks"](hidden, mask, is_causal=True))
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), found[:, 1:])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def state(self) -> Any:
        return copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))

    def restore(self, state: Any, rate: float) -> None:
        model, optimizer = copy.deepcopy(state)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def trees(self) -> dict[str, dict[str, Any]]:
        """The bfloat16 weights, and Adam's moments, each as it is saved."""
        state, named = self.optimizer.state, list(self.model.named_parameters())
        return {
            "weights": {name: value.detach().bfloat16() for name, value in named},
            "first_moment": {name: state[value]["exp_avg"] for name, value in named},
            "second_moment": {name: state[value]["exp_avg_sq"] for name, value in named},
        }


def sizes(folder: Path, width: int, layers: int) -> Iterator[tuple[float, int, Size]]:
    """For each setting what its patch takes."""
    import ckptfmt_torch

    import ckptfmt

    trainer = Trainer(width, layers)
    trainer.train(WARM)
    begin = trainer.state()
    for rate, steps, _ in SETTINGS:
        trainer.restore(begin, rate)
        trainer.train(3)
        found: dict[str, float] = {}
        before = trainer.trees()
        before = copy.deepcopy(before)
        trainer.train(steps)
        for part, tree in trainer.trees().items():
            ckptfmt_torch.save(folder / "base", before[part], durable=False, overwrite=True)
            ckptfmt_torch.save(folder / "new", tree, durable=False, overwrite=True)
            report = ckptfmt.patch(folder / "base", folder / "new", folder / "patch", durable=False, overwrite=True)
            forms = (report.same, report.xor, report.whole)
            found[part] = sum(form.stored for form in forms) / sum(form.bytes for form in forms)
            if part == "weights":
                found["file"] = report.ratio
        yield rate, steps, Size(**found)


def changed(arrays: dict[str, Any], part: float, random: np.random.Generator) -> dict[str, Any]:
    """Arrays of 16 bits, of which a part of all elements have the next code."""
    found = {}
    for name, array in arrays.items():
        bits = array.view(np.uint16).copy()
        flips = random.random(bits.shape, dtype=np.float32) < part
        found[name] = (bits + flips.astype(np.uint16)).view(array.dtype)
    return found


def speeds(folder: Path, rounds: int, *, quick: bool) -> Iterator[tuple[float, float, Spread, Spread]]:
    """Part of the elements that changed, size of the patch, speed beside a copy, seconds of the copy."""
    import ckptfmt

    arrays, random = llama(quick=quick).arrays(), np.random.default_rng(0)
    base, result, patch, target = (folder / name for name in ("base", "result", "patch", "target"))
    ckptfmt.save(base, arrays, durable=False, overwrite=True)
    fast = {"name": "blosc", "clevel": 1}  # what is applied does not depend on how long it took to make
    for part in (0.005, 0.04, 0.4):
        ckptfmt.save(result, changed(arrays, part, random), durable=False, overwrite=True)
        report = ckptfmt.patch(base, result, patch, compression=fast, durable=False, overwrite=True)
        ratios, copies = [], []
        for _ in range(rounds):
            copies.append(copied(result, target))
            seconds, _ = timed(PROGRAM, base, target, str(patch))
            ratios.append(copies[-1] / seconds)
        remove(target)
        yield part, report.ratio, Spread.of(ratios), Spread.of(copies)


def slice_reads(folder: Path) -> tuple[int, int]:
    """Bytes that one row of the largest tensor of a patch reads of it, and of its base."""
    import ckptfmt

    with ckptfmt.open(folder / "base") as base, ckptfmt.open(folder / "patch", base=base) as patch:
        tensor = max(patch.tensors.values(), key=lambda tensor: tensor.nbytes)
        tensor[len(tensor) // 2]
        return patch.bytes_read, base.bytes_read


@click.command()
@click.option("--quick", is_flag=True, help="A far smaller model and state.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", type=click.Choice(["sizes", "speed"]))
@click.option("--dir", "parent", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path())
def main(*, quick: bool, rounds: int, only: str | None, parent: Path) -> None:
    """Measure patches."""
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as name:
        folder = Path(name).resolve()
        if only != "speed":
            click.echo("bytes of chunks for each byte of tensors; the file with all that is around them")
            click.echo("rate    steps  weights  asked   file    first moment  second moment")
            wanted = {(rate, steps): size for rate, steps, size in SETTINGS}
            for rate, steps, size in sizes(folder, 128 if quick else 192, 2 if quick else 4):
                asked = f"{wanted[rate, steps]:.3f}"
                moments = f"{size.first_moment:<13.3f} {size.second_moment:.3f}"
                click.echo(f"{rate:<7.0e} {steps:<6} {size.weights:<8.4f} {asked:<7} {size.file:<7.4f} {moments}")
            click.echo(f"asked for of the second moment: {MOMENT[0]} to {MOMENT[1]}")
        if only != "sizes":
            click.echo("changed  size    speed beside a copy (more is better)  seconds of the copy")
            for part, ratio, speed, seconds in speeds(folder, rounds, quick=quick):
                click.echo(f"{part:<8} {ratio:<7.4f} {speed!s:<37} {seconds}")
            click.echo(f"asked for: at least {TARGET}; load of the machine: {os.getloadavg()[0]:.1f}")
            click.echo(
                "bytes that one row of the largest tensor reads: {} of the patch, {} of the base".format(
                    *slice_reads(folder)
                )
            )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.patches")
