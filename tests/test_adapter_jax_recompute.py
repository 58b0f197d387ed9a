"""A scan with a budget has the gradient of `jax.lax.scan`, in the steps of its schedule, compiled once."""

from __future__ import annotations

import errno
import gc
import itertools
import re
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import use_disk
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.recompute import Costs, plan

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install ckptfmt[jax]")

import jax.numpy as jnp  # noqa: E402
from ckptfmt_jax import spills  # noqa: E402
from ckptfmt_jax.recompute import scan  # noqa: E402
from jax import lax  # noqa: E402
from jax.sharding import AxisType, PartitionSpec  # noqa: E402

RANDOM = np.random.default_rng(1)  # of NumPy: devices are not used before all tests are collected
WEIGHT = RANDOM.standard_normal((4, 4), np.float32) * np.float32(0.4)
START = np.linspace(-1.0, 1.0, 4, dtype=np.float32)
XS = RANDOM.standard_normal((24, 4), np.float32)
COMPILED = "/jax/core/compile/backend_compile_duration"


def step(weight: Any, carry: Any, x: Any) -> Any:
    """With dropout from a typed key, a raw one, an int, None, and what it closes over."""
    drop = jax.random.bernoulli(carry["key"], 0.8, (4,))
    noise = jax.random.uniform(jax.random.wrap_key_data(carry["raw"]), (4,), x.dtype)
    hidden = jnp.tanh(weight @ carry["hidden"] + x + 0.1 * noise) * drop
    after = {
        "hidden": hidden,
        "key": jax.random.fold_in(carry["key"], 1),
        "raw": carry["raw"] + 1,
        "number": carry["number"] + 1,
        "nothing": None,
    }
    return after, (hidden.sum(), {"number": carry["number"], "key": after["key"]})


def full_loss(run: Callable[..., Any], weight: Any, start: Any, xs: Any, **options: Any) -> Any:
    carry = {
        "hidden": start,
        "key": jax.random.key(3),
        "raw": jax.random.key_data(jax.random.key(4)),
        "number": 0,
        "nothing": None,
    }
    last, (sums, about) = run(lambda carry, x: step(weight, carry, x), carry, xs, **options)
    loss = (last["hidden"] ** 2).sum() + (sums**2).sum()
    return loss, (last["number"], jax.random.key_data(last["key"]), about["number"], jax.random.key_data(about["key"]))


def plain_loss(run: Callable[..., Any], weight: Any, start: Any, xs: Any, **options: Any) -> Any:
    last, sums = run(lambda c, x: (jnp.tanh(weight @ c + x), c[0]), start, xs, **options)
    return (last**2).sum() + sums.sum()


def gradients(loss: Callable[..., Any], run: Callable[..., Any], xs: Any, **options: Any) -> Any:
    found = jax.jit(jax.value_and_grad(partial(loss, run, **options), argnums=(0, 1, 2), has_aux=loss is full_loss))
    return jax.block_until_ready(found(WEIGHT, START, xs))


def check_same(found: Any, wanted: Any) -> None:
    """XLA may contract or order operations otherwise in another loop: in the last bits."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


@settings(max_examples=2, deadline=None)  # each is compiled
@given(
    *(st.integers(1, 24), st.integers(0, 5), st.integers(0, 4), st.integers(1, 5), st.booleans()),
)
def test_the_gradient_is_that_of_lax_scan(steps: int, memory: int, disk: int, segment: int, reverse: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        budget = {"memory": memory, "disk": disk, "folder": folder} if memory + disk else {"memory": 1}
        found = gradients(full_loss, scan, XS[:steps], reverse=reverse, segment=segment, **budget)
        assert list(Path(folder).iterdir()) == []
    check_same(found, gradients(full_loss, lax.scan, XS[:steps], reverse=reverse))


def test_each_budget_gives_the_same_bits(tmp_path: Path) -> None:
    ways: tuple[dict[str, Any], ...] = (
        {"memory": 3},
        {"memory": "32B", "disk": 2, "folder": tmp_path},  # two carries of 16 bytes
    )
    found = [gradients(plain_loss, scan, XS[:9], **way) for way in ways]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), *found))
    check_same(found[0], gradients(plain_loss, lax.scan, XS[:9]))


def test_segments() -> None:
    """With one that is shorter at the end."""
    found = gradients(plain_loss, scan, XS[:11], memory=2, segment=4, reverse=True)
    check_same(found, gradients(plain_loss, lax.scan, XS[:11], reverse=True))


def test_without_jit_and_without_xs(tmp_path: Path) -> None:
    """What f closes over, in a function that it calls, is differentiated, in other dtypes, too; a weak type is promoted
    as lax.scan does it."""

    def loss(run: Callable[..., Any], scale: Any, start: Any, **options: Any) -> Any:
        def scaled(value: Any) -> Any:
            return value * scale

        def f(carry: Any, _: None) -> Any:
            total, wide = carry
            return (scaled(total) + 1, jnp.sin(wide * 1.5)), None

        (total, wide), nothing = run(f, (0, start), length=7, **options)
        assert nothing is None
        return total + wide.astype(jnp.float32).sum()

    arguments = (jnp.float32(0.9), jnp.ones(3, jnp.bfloat16))
    found = jax.grad(partial(loss, scan, memory=1, disk=2, folder=tmp_path), (0, 1))(*arguments)
    wanted = jax.grad(partial(loss, lax.scan), (0, 1))(*arguments)
    assert [leaf.dtype for leaf in found] == [leaf.dtype for leaf in wanted]
    assert float(found[0]) == pytest.approx(float(wanted[0]))
    np.testing.assert_allclose(found[1].astype(np.float32), wanted[1].astype(np.float32), rtol=0.02)


# ---- how often the step is done, and compiled


@pytest.mark.parametrize("way", [{"memory": 3}, {"memory": 1, "disk": 2}], ids=str)
def test_as_many_steps_as_the_schedule_has(tmp_path: Path, way: dict[str, Any]) -> None:
    calls = itertools.count()

    def f(carry: Any, x: Any) -> Any:
        jax.debug.callback(lambda: next(calls))
        return carry * x, None

    options = {**way, "folder": tmp_path} if "disk" in way else way
    jax.block_until_ready(jax.grad(lambda carry: scan(f, carry, XS[:15, 0], **options)[0])(1.0))
    jax.effects_barrier()
    name = "multistage" if "disk" in way else "revolve"
    (planned,) = plan(15, **way, schedule=name).schedules
    assert next(calls) == planned.forward_steps + 15  # each adjoint step has a step in it


@contextmanager
def compilations() -> Any:
    count = [0]

    def heard(event: str, _: float, **__: Any) -> None:
        count[0] += event == COMPILED

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)


def test_nothing_is_compiled_twice() -> None:
    traced = []

    def f(carry: Any, x: Any) -> Any:
        traced.append(x)
        return jnp.sin(carry) * x, None

    def loss(carry: Any, xs: Any) -> Any:
        return scan(f, carry, xs, memory=2)[0].sum()

    for gradient in (jax.grad(loss), jax.jit(jax.grad(loss))):
        others = jax.block_until_ready((START + 1, XS + 1))
        gradient(START, XS)
        with compilations() as count:
            gradient(*others)
        assert count == [0]
    assert len(traced) == 1


def test_the_program_does_not_grow_with_the_number_of_steps() -> None:
    def operations(steps: int) -> int:
        text = jax.jit(jax.grad(partial(plain_loss, scan, memory=3))).lower(WEIGHT, START, jnp.ones((steps, 4)))
        return len(re.findall(r" = ", text.as_text()))

    assert operations(12) == operations(120)


def test_what_nobody_differentiates_is_left_out() -> None:
    xs = jnp.ones((8, 1 << 16))

    def loss(scale: Any, xs: Any) -> Any:
        return scan(lambda carry, x: (carry * scale + x[:4], None), START, xs, memory=2)[0].sum()

    program = jax.jit(jax.grad(loss)).lower(jnp.float32(1), xs).compile()
    assert program.memory_analysis().temp_size_in_bytes < xs.nbytes // 8


# ---- what else goes on


def test_in_another_scan_under_vmap_and_under_checkpoint(tmp_path: Path) -> None:
    """In another scan several runs are on their way: each has snapshots of its own."""

    def in_a_scan(loss: Callable[..., Any], weight: Any) -> Any:
        def add(total: Any, scale: Any) -> Any:
            return total + loss(weight * scale, START, XS[:7]), None

        return lax.scan(add, 0.0, jnp.arange(1.0, 4))[0]

    def mapped(loss: Callable[..., Any], weight: Any) -> Any:
        return jax.vmap(loss, (0, None, None))(jnp.stack([weight, weight * 2]), START, XS[:7]).sum()

    def checkpointed(loss: Callable[..., Any], weight: Any) -> Any:
        return jax.checkpoint(loss)(weight, START, XS[:7])

    for around, options in (
        (in_a_scan, {"memory": 1, "disk": 2, "folder": tmp_path}),
        (mapped, {"memory": 2}),
        (checkpointed, {"memory": 2}),
    ):
        found, wanted = (
            jax.jit(jax.grad(partial(around, partial(plain_loss, run, **given))))(WEIGHT)
            for run, given in ((scan, options), (lax.scan, {}))
        )
        check_same(found, wanted)
    assert list(tmp_path.iterdir()) == []


def spread_over_a_mesh(function: Callable[..., Any]) -> Any:
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("devices")
    return jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split)


def test_under_shard_map() -> None:
    found = [
        jax.jit(spread_over_a_mesh(jax.grad(lambda start: plain_loss(run, WEIGHT, start, XS[:5], **options))))(START)
        for run, options in ((scan, {"memory": 2}), (lax.scan, {}))
    ]
    check_same(*found)


def test_forward_over_reverse() -> None:
    def hessian(run: Callable[..., Any], **options: Any) -> Any:
        return jax.jit(jax.jacfwd(jax.grad(lambda start: plain_loss(run, WEIGHT, start, XS[:5], **options))))(START)

    check_same(hessian(scan, memory=2), hessian(lax.scan))


def test_what_is_refused(tmp_path: Path) -> None:
    budgets = ({"memory": 2}, {"memory": 1, "disk": 2, "folder": tmp_path})
    in_memory, on_disk = (
        partial(lambda options, start: plain_loss(scan, WEIGHT, start, XS[:5], **options), budget) for budget in budgets
    )
    for refused, words in (
        (jax.vmap(jax.grad(on_disk)), "goes under no vmap"),
        (jax.grad(lambda starts: jax.vmap(on_disk)(starts).sum()), "goes under no vmap"),
    ):
        with pytest.raises(ckptfmt.InputError, match=words):
            refused(jnp.stack([START, START]))
    with pytest.raises(ckptfmt.InputError, match="goes under no shard_map"):
        jax.jit(spread_over_a_mesh(jax.grad(on_disk)))(START)
    assert jax.vmap(on_disk)(jnp.stack([START, START])).shape == (2,)  # the value alone
    for loss, outer, words in (
        (in_memory, jax.grad, "has no backward derivative"),
        (on_disk, jax.grad, "has no second derivative"),
        (on_disk, jax.jacfwd, "has no second derivative"),
    ):
        with pytest.raises(ckptfmt.InputError, match=words):
            outer(lambda start, loss=loss: (jax.grad(loss)(start) ** 2).sum())(START)
    assert spills.open_runs() == []
    assert list(tmp_path.iterdir()) == []


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"memory": 0}, "no snapshots can be held"),
    ({"memory": -1}, "memory="),
    ({"memory": "3B"}, "not enough for one snapshot"),
    ({"disk": 3}, "folder="),
    ({"folder": "s3://bucket/x"}, "folder="),
    ({"memory": 2, "schedule": "revolv"}, "did you mean 'revolve'"),
    ({"memory": 2, "schedule": "multistage"}, "memory= and disk="),
    ({"memory": 2, "schedule": "auto"}, "costs="),
    ({"memory": 2, "segment": 0}, "segment="),
    ({"memory": 2, "period": True}, "period="),
    ({"segment": 3}, "segment= without a budget"),
    ({"memori": 2}, "did you mean 'memory'"),
)


@pytest.mark.parametrize(("options", "words"), BAD, ids=str)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ckptfmt.InputError, match=words) as caught:
        scan(lambda carry, x: (carry + x, None), START, XS, **options)
    assert caught.value.code == "bad-option"


def test_what_lax_scan_refuses() -> None:
    for f, length, error, words in (
        (lambda c, x: (c, None), 3, ValueError, "disagrees with leading axis"),
        (lambda c, x: ((c, c), None), None, TypeError, "same pytree structure"),
        (lambda c, x: c, None, TypeError, "must be a pair"),
        (lambda c, x: (c.astype(int), None), None, TypeError, "equal types"),
    ):
        with pytest.raises(error, match=words):
            scan(f, START, XS, length, memory=2)


def test_a_schedule_by_its_costs(tmp_path: Path) -> None:
    """And no step, and one."""
    found = gradients(
        plain_loss, scan, XS[:6], memory=2, disk=3, folder=tmp_path, schedule="auto", costs=Costs(write=9)
    )
    check_same(found, gradients(plain_loss, lax.scan, XS[:6]))
    for steps in (0, 1):
        last, ys = scan(lambda c, x: (c + x, x), START, XS[:steps], memory=2)
        np.testing.assert_array_equal(last, START + XS[:steps].sum(0))
        assert ys.shape == (steps, 4)


# ---- the disk


def test_runs_whose_backward_pass_never_comes(tmp_path: Path) -> None:
    loss = partial(plain_loss, scan, memory=1, disk=2, folder=tmp_path)
    jax.block_until_ready(jax.jit(loss)(WEIGHT, START, XS[:5]))
    assert list(tmp_path.iterdir()) == []  # nothing is kept where nobody asks for a gradient

    _, back = jax.vjp(loss, WEIGHT, START, XS[:5])
    assert len(list(tmp_path.iterdir())) == 1
    assert ckptfmt.gc(tmp_path, delete=True, grace=0).found == ()
    del back
    gc.collect()
    assert list(tmp_path.iterdir()) == []

    _, back = jax.vjp(loss, WEIGHT, START, XS[:5])
    check_same(back(jnp.float32(1)), jax.grad(partial(plain_loss, lax.scan), (0, 1, 2))(WEIGHT, START, XS[:5]))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(jax.errors.JaxRuntimeError, match="its backward pass ran before"):
        jax.block_until_ready(back(jnp.float32(1)))

    forward = jax.jit(lambda weight: jax.vjp(loss, weight, START, XS[:5])[0])  # traced, and its backward pass is not
    jax.block_until_ready(forward(WEIGHT))
    jax.effects_barrier()
    assert len(spills.open_runs()) == 1
    spills.give_up_all()  # as at the end of the process
    assert list(tmp_path.iterdir()) == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_snapshot_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End it, with the words of the error; nothing is left, and the next call is as ever."""
    gradient = jax.jit(jax.grad(partial(plain_loss, scan, disk=2, folder=tmp_path)))

    def run() -> Any:
        return jax.block_until_ready(gradient(WEIGHT, START, XS[:7]))

    wanted = run()
    fetch = spills.Spill.fetch

    def damaged(self: Any, number: int, *, last: bool) -> Any:
        self.settle()
        for path in tmp_path.glob(".*/snapshot-*"):
            flip(path)
        return fetch(self, number, last=last)

    with monkeypatch.context() as patch:
        patch.setattr(spills.Spill, "fetch", damaged)
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"CorruptError: .*sha256"):
            run()
    assert list(tmp_path.iterdir()) == []

    written = itertools.count()

    def full(name: str, *_: Any) -> None:
        if name == "write" and next(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    disk = use_disk(full)
    try:
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"\[disk-full\]"):
            run()
    finally:
        disk.undo()
    assert spills.open_runs() == []
    assert list(tmp_path.iterdir()) == []
    assert (run() == wanted).all()


def test_snapshots_of_another_run_are_never_used(tmp_path: Path) -> None:
    """Where callbacks come in another order than the schedule has, however that were."""
    name = spills.begin(str(tmp_path), (3, 0))
    arrays = [np.arange(3.0)]
    spills.store(name, 0, arrays)
    with pytest.raises(ckptfmt.CorruptError, match="another order"):
        spills.fetch(name, 0, last=True)
    with pytest.raises(ckptfmt.CorruptError, match="are gone"):
        spills.store(name, 3, arrays)
    name = spills.begin(str(tmp_path), (0,))
    spills.store(name, 0, arrays)
    with pytest.raises(ckptfmt.CorruptError, match="another order"):
        spills.store(name, 0, arrays)
    assert list(tmp_path.iterdir()) == []
