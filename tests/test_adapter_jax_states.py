"""Training states of optax and flax, saved after some steps, come back like another state or its shapes alone, and go
on as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ckptfmt

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install ckptfmt[jax]")
optax = pytest.importorskip("optax", reason="optax is not installed")
flax = pytest.importorskip("flax", reason="flax is not installed")

import ckptfmt_jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import linen, nnx  # noqa: E402
from flax.training.train_state import TrainState  # noqa: E402


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.ckpt"


def assert_same(found, expected):
    """The same structure, static parts included, and the same arrays to the bit, weak types included."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (where, one), (_, other) in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves_with_path(expected), strict=True
    ):
        name = jax.tree_util.keystr(where)
        assert jax.typeof(one) == jax.typeof(other), name
        if jnp.issubdtype(other.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), name


# ---- optax


OPTIMISERS = {
    "adamw": lambda: optax.adamw(1e-2),
    "momentum": lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 10), momentum=0.9),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_lion(), optax.scale(-1e-3)),
    "masked": lambda: optax.masked(optax.adam(1e-2), {"dense": {"w": True, "b": False}, "head": True}),
    "partition": lambda: optax.multi_transform(
        {"fast": optax.adam(1e-1), "slow": optax.sgd(1e-3)},
        {"dense": {"w": "fast", "b": "slow"}, "head": "slow"},
    ),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=optax.linear_schedule(1e-2, 1e-3, 5)),
    "accumulated": lambda: optax.MultiSteps(optax.adafactor(1e-2), every_k_schedule=2).gradient_transformation(),
    "lookahead of bfloat16": lambda: optax.apply_if_finite(optax.adam(1e-2, mu_dtype=jnp.bfloat16), 3),
}


def parameters():
    return {
        "dense": {"w": jnp.full((4, 3), 0.5, jnp.float32), "b": jnp.zeros(3)},
        "head": jnp.ones((3, 2), jnp.bfloat16),
    }


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optax(path, name):
    optimiser = OPTIMISERS[name]()

    @jax.jit
    def step(params, state):
        gradients = jax.tree.map(lambda p: jnp.sin(p + 1), params)
        updates, state = optimiser.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = parameters()
    state = optimiser.init(params)
    for _ in range(3):
        params, state = step(params, state)
    ckptfmt_jax.save(path, (params, state))
    first = parameters(), optimiser.init(parameters())
    # after one step, as optax may promote what it has just made: a moment of bfloat16 by a rate of float32
    for like in (step(*first), jax.eval_shape(step, *first)):
        found = ckptfmt_jax.load(path, like)
        assert_same(found, (params, state))
        assert_same(step(*found), step(params, state))


# ---- linen


class Net(linen.Module):
    @linen.compact
    def __call__(self, x, train: bool = True):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(5)(x))
        return linen.Dense(2, param_dtype=jnp.bfloat16)(linen.relu(x))


class State(TrainState):
    statistics: dict
    key: jax.Array


def make_state():
    net = Net()
    variables = net.init(jax.random.key(0), jnp.ones((1, 3)))
    return State.create(
        apply_fn=net.apply,
        params=variables["params"],
        tx=OPTIMISER,
        statistics=variables["batch_stats"],
        key=jax.random.key(7),
    )


OPTIMISER = optax.adamw(1e-2)


@jax.jit
def train(state):
    key, drawn = jax.random.split(state.key)
    x = jax.random.normal(drawn, (8, 3))

    def loss(params):
        variables = {"params": params, "batch_stats": state.statistics}
        out, changed = Net().apply(variables, x, mutable=["batch_stats"])
        return (out.astype(jnp.float32) ** 2).mean(), changed["batch_stats"]

    gradients, statistics = jax.grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, statistics=statistics, key=key)


def test_linen_train_state(path):
    state = train(train(make_state()))
    ckptfmt_jax.save(path, state)
    fresh = make_state()
    assert fresh.step == 0
    assert type(fresh.step) is int  # yet after a step it is an array
    like = fresh.replace(apply_fn=state.apply_fn)  # a static field, which comes from the template
    found = ckptfmt_jax.load(path, like)
    assert (found.step, type(found.step)) == (2, int)
    assert found.apply_fn is state.apply_fn
    assert_same(train(found), train(state))
    shapes = jax.eval_shape(train, state)
    assert_same(ckptfmt_jax.load(path, shapes), state)


def test_gradient_checkpointing_renames_by_a_migration(path, tmp_path):
    """The rule of docs/jax.md."""

    class Layer(linen.Module):
        kind: type

        @linen.compact
        def __call__(self, x):
            return self.kind(3)(x)

    plain, remat = (
        Layer(kind).init(jax.random.key(0), jnp.ones((1, 2))) for kind in (linen.Dense, linen.remat(linen.Dense))
    )
    (block,) = re.findall(r'^{"from": "params/Dense.*}$', (Path(__file__).parents[1] / "docs/jax.md").read_text(), re.M)
    document = {"ckptfmt_migration": 1, "schema": "net", "from": "plain", "to": "remat", "rules": [json.loads(block)]}
    ckptfmt_jax.save(path, plain, schema=("net", "plain"))
    ckptfmt.migrate(path, tmp_path / "remat.ckpt", document, schema="remat")
    found = ckptfmt_jax.load(tmp_path / "remat.ckpt", jax.eval_shape(lambda: remat))
    assert_same(found["params"]["CheckpointDense_0"], plain["params"]["Dense_0"])


def test_linen_boxes_and_frozen_dicts(path):
    boxed = linen.Partitioned(jnp.ones((4, 2)), names=("rows", None))
    tree = flax.core.freeze({"params": {"w": boxed, "b": jnp.zeros(2)}})
    ckptfmt_jax.save(path, tree)
    found = ckptfmt_jax.load(path, jax.eval_shape(lambda: tree))
    assert isinstance(found, flax.core.FrozenDict)
    assert found["params"]["w"].names == ("rows", None)
    assert_same(found, tree)
    with pytest.warns(ckptfmt.UnknownTagWarning, match="flax.core.meta.Partitioned"):
        plain = ckptfmt.load(path)
    assert plain["params"]["w"]["value"].tolist() == [[1, 1]] * 4


# ---- nnx


class Model(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.tied = self.first

    def __call__(self, x):
        x = self.drop(self.norm(self.first(x)))
        for layer in self.layers:
            x = layer(x)
        return x


def step(model, optimiser):
    gradients = nnx.grad(lambda model: (model(jnp.ones((2, 3))) ** 2).mean())(model)
    optimiser.update(model, gradients)


def make_model(seed):
    model = Model(nnx.Rngs(seed))
    return model, nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)


def test_nnx_states(path):
    model, optimiser = make_model(0)
    for _ in range(2):
        step(model, optimiser)
    ckptfmt_jax.save(path, {"model": nnx.state(model), "optimiser": nnx.state(optimiser)})

    other, other_optimiser = make_model(1)
    found = ckptfmt_jax.load(path, {"model": nnx.state(other), "optimiser": nnx.state(other_optimiser)})
    nnx.update(other, found["model"])
    nnx.update(other_optimiser, found["optimiser"])
    assert other.tied is other.first
    for _ in range(2):
        step(model, optimiser)
        step(other, other_optimiser)
    assert_same(nnx.state(other), nnx.state(model))
    assert_same(nnx.state(other_optimiser), nnx.state(optimiser))


def test_nnx_abstract_models(path):
    model, _ = make_model(0)
    graph, state = nnx.split(model)
    ckptfmt_jax.save(path, state)
    shapes = nnx.state(nnx.eval_shape(lambda: Model(nnx.Rngs(0))))
    found = ckptfmt_jax.load(path, shapes)
    assert_same(found, state)
    rebuilt = nnx.merge(graph, found)
    rebuilt.eval()
    model.eval()
    x = jnp.ones((2, 3))
    assert rebuilt(x).tolist() == model(x).tolist()


def test_nnx_pure_states_need_no_template(path):
    model, _ = make_model(0)
    pure = nnx.as_pure(nnx.state(model, nnx.Param))
    ckptfmt_jax.save(path, pure)
    assert_same(ckptfmt_jax.load(path, pure), pure)


def test_nnx_modules_are_pytrees(path):
    model, _ = make_model(0)
    ckptfmt_jax.save(path, model.layers)
    found = ckptfmt_jax.load(path, make_model(1)[0].layers)
    assert isinstance(found, nnx.List)
    assert_same(nnx.state(found), nnx.state(model.layers))


# ---- the example


def train_on(mesh, checkpoint, steps):
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "adapters")])}
    options = ["--checkpoint", checkpoint, "--steps", steps, "--mesh", mesh]
    command = [sys.executable, root / "examples" / "jax_training.py", *options]
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_resumes_to_the_bit_and_on_another_mesh(tmp_path):
    straight, stopped = tmp_path / "straight.ckpt", tmp_path / "stopped.ckpt"
    for checkpoint, steps in ((straight, 6), (stopped, 3), (stopped, 6)):
        train_on("4x2", checkpoint, steps)
    assert straight.read_bytes() == stopped.read_bytes()
    assert "step 9 on a mesh of 1x2" in train_on("1x2", stopped, 9)
