"""`python -m benchmarks.recompute`: gradients with few states kept. Steps beside the optimum, peak memory of a long
run, chains of torch and a scan of JAX beside their own checkpointing, snapshots beside a plain loop of saves and loads;
and the picture of docs/recompute.md."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

import ckptfmt
from benchmarks.memory import status
from ckptfmt.cli.tradeoff import write_tradeoff
from ckptfmt.recompute import Costs, gradient, plan
from ckptfmt.recompute.driver import Driver
from ckptfmt.recompute.optimum import fewest_steps
from ckptfmt.recompute.schedules import Slots, table_of
from ckptfmt.recompute.snapshots import Snapshots, Traffic

MIB = 1 << 20
PICTURE = Path("docs/recompute.png")
SLACK = 64 * MIB  # what a run may take beside its budget and a step's own memory


class Counting:
    """The cheapest computation: it counts, and sees that all is in order."""

    calls = 0

    def advance(self, state: int, first: int, last: int) -> int:
        assert state == first
        self.calls += last - first
        return last

    def reverse(self, state: int, number: int, adjoint: int) -> int:
        assert state == number == adjoint - 1
        return number

    def hold(self, state: int) -> int:
        return state

    def give(self, held: int, *, last: bool) -> int:
        return held

    def size(self, held: int) -> int:
        return 8

    def fingerprint(self, state: int) -> bytes:
        return bytes(state)

    def pack(self, held: int) -> Any:
        return held, None

    def unpack(self, load: Callable[[Any], Any], beside: Any) -> Any:
        return load(None)


def beside_the_optimum(most_steps: int, most_slots: int) -> dict[str, Any]:
    """Calls of the step by the driver, for every pair of steps and snapshots, less those of the formula."""
    pairs, differences = 0, 0
    for steps in range(1, most_steps + 1):
        for slots in range(1, most_slots + 1):
            computation = Counting()
            table = table_of("revolve", steps, Slots(slots), Costs())
            driver = Driver(computation, Snapshots(computation, None, Traffic()), table)
            driver.begin(0)
            assert driver.backward(driver.forward()) == 0
            pairs += 1
            differences += abs(computation.calls - fewest_steps(steps, slots))
    return {"pairs": pairs, "difference in steps": differences}


# ---- peak memory, in a fresh process


def step(state: dict[str, Any], number: int) -> dict[str, Any]:
    x = state["x"]
    return {"x": x * 0.999 + 0.001}


def adjoint(state: dict[str, Any], number: int, after: Any) -> Any:
    return after * 0.999


def peak(steps: int, mib: int, options: dict[str, Any]) -> dict[str, Any]:
    """How far resident memory rises over a run, beside its budget and the memory of one step."""
    state = {"x": np.ones(mib * MIB // 8)}
    step(state, 0)
    warm = gradient(step, adjoint, {"x": np.ones(8)}, 3, np.ones(8), memory=2)  # imports
    assert warm.report.steps == 3
    (before,) = status("self", "VmRSS")
    start = time.monotonic()
    found = gradient(step, adjoint, state, steps, np.ones(mib * MIB // 8), **options)
    (top,) = status("self", "VmHWM")
    report = found.report
    working = 4 * mib * MIB  # of a step: state and next state; adjoint and next adjoint
    allowed = report.memory_bytes + working + SLACK
    return {
        "schedule": report.schedule,
        "forward steps": report.forward_steps,
        "memory budget MiB": report.memory_bytes // MIB,
        "disk peak MiB": report.disk_bytes // MIB,
        "rise MiB": (top - before) // MIB,
        "allowed MiB": allowed // MIB,
        "seconds": round(time.monotonic() - start),
    }


def in_a_process(*arguments: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.recompute", "--peak", json.dumps(arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)  # type: ignore[no-any-return]


# ---- traffic


def traffic(folder: Path, steps: int, mib: int, rounds: int) -> dict[str, Any]:
    """Bytes a second that a schedule which stores every state moves, beside a plain loop; the best of some rounds."""
    size = mib * MIB
    state = np.random.default_rng(0).random(size // 8)
    ours, plain = [], []
    for _ in range(rounds):
        start = time.monotonic()
        for number in range(steps):
            ckptfmt.save(folder / f"{number}.ckpt", state, durable=False)
        for number in reversed(range(steps)):
            ckptfmt.load(folder / f"{number}.ckpt")
            (folder / f"{number}.ckpt").unlink()
        plain.append(2 * steps * size / (time.monotonic() - start))
        start = time.monotonic()
        gradient(lambda s, n: s, lambda s, n, a: a, state, steps, 0, schedule="disk", disk=steps, folder=folder)
        ours.append(2 * steps * size / (time.monotonic() - start))
    return {
        "MB/s": round(max(ours) / 1e6),
        "plain loop MB/s": round(max(plain) / 1e6),
        "ratio": round(max(ours) / max(plain), 2),
    }


# ---- JAX


def beside_nested_checkpoints(steps: int, width: int, rounds: int) -> list[dict[str, Any]]:
    """The gradient of a scan of JAX with a budget, beside `jax.checkpoint` nested by hand that holds as much: around
    each step and each segment of steps, or around segments alone. The best of rounds that take turns."""
    import jax  # so that all else runs without it
    import jax.numpy as jnp
    from ckptfmt_jax.recompute import scan

    segment = round(steps**0.5)
    assert segment**2 == steps
    weight = jax.random.normal(jax.random.key(1), (width, width)) / width**0.5
    xs = jax.random.normal(jax.random.key(2), (steps, width)) * 0.1
    start = jnp.ones((64, width))

    def f(weight: Any, carry: Any, x: Any) -> Any:
        return jnp.tanh(carry @ weight + x), None

    def by_hand(around: Callable[..., Any]) -> Callable[..., Any]:
        def run(step: Any, carry: Any, xs: Any) -> Any:
            inner = jax.checkpoint(lambda carry, xs: jax.lax.scan(around(step), carry, xs))
            return jax.lax.scan(inner, carry, xs.reshape(segment, segment, width))

        return run

    def compiled(run: Callable[..., Any]) -> Any:
        def loss(weight: Any, start: Any) -> Any:
            return (run(lambda carry, x: f(weight, carry, x), start, xs)[0] ** 2).sum()

        return jax.jit(jax.grad(loss, (0, 1))).lower(weight, start).compile()

    pairs = {
        "each step": (by_hand(jax.checkpoint), lambda *given: scan(*given, memory=2 * segment)),
        "segments": (by_hand(lambda step: step), lambda *given: scan(*given, memory=segment, segment=segment)),
    }
    rows = []
    for name, runs in pairs.items():
        programs = [compiled(run) for run in runs]
        best = [float("inf")] * 2
        for _ in range(rounds):
            for place, program in enumerate(programs):
                begun = time.monotonic()
                jax.block_until_ready(program(weight, start))
                best[place] = min(best[place], time.monotonic() - begun)
        by_hand_kib, kib = (program.memory_analysis().temp_size_in_bytes >> 10 for program in programs)
        rows.append({"around": name, "ratio": round(best[1] / best[0], 2), "KiB": kib, "by hand KiB": by_hand_kib})
    return rows


def picture() -> None:
    found = plan(1000, memory=10, disk=100, costs=Costs(write=5, read=3))
    write_tradeoff(str(PICTURE), found)


@click.command()
@click.option("--quick", is_flag=True, help="Fewer pairs and shorter runs.")
@click.option("--dir", "parent", type=click.Path(path_type=Path), default=Path(), help="The disk that is meant.")
@click.option("--peak", "arguments", hidden=True)
@click.option("--picture", "picture_only", is_flag=True, help="Draw the picture of the guide, and no more.")
def main(quick: bool, parent: Path, arguments: str | None, picture_only: bool) -> None:
    """Run all of it, and print a line for each."""
    if arguments is not None:
        click.echo(json.dumps(peak(*json.loads(arguments))))
        return
    picture()
    if picture_only:
        return
    click.echo(f"optimum: {beside_the_optimum(*((40, 8) if quick else (200, 20)))}")
    steps = 500 if quick else 10_000
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as folder:
        for options in ({"memory": 20}, {"memory": 10, "disk": "unlimited", "schedule": "two-level", "folder": folder}):
            click.echo(f"memory, {steps:,} steps of 4 MiB: {in_a_process(steps, 4, options)}")
        for row in beside_nested_checkpoints(256 if quick else 1024, 256, 3 if quick else 20):
            click.echo(f"scan of JAX beside nested jax.checkpoint: {row}")
        click.echo(f"traffic: {traffic(Path(folder), *((10, 16, 1) if quick else (20, 64, 5)))}")
        in_torch(Path(folder), 2 if quick else 9)


def in_torch(folder: Path, rounds: int) -> None:
    if find_spec("torch") is None:
        click.echo("torch: it is not installed")
        return
    from benchmarks import recompute_torch

    click.echo(f"torch, a chain beside torch.utils.checkpoint: {recompute_torch.chains(rounds)}")
    click.echo(f"torch, offload beside none: {recompute_torch.offloading(folder, rounds)}")


if __name__ == "__main__":
    main()
