"""Like a template, what flax and Orbax wrote themselves: optimizers of optax, with NamedTuples, None, empty nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt

jax = pytest.importorskip("jax")
ckptfmt_jax = pytest.importorskip("ckptfmt_jax")
optax = pytest.importorskip("optax")
flax = pytest.importorskip("flax")
ocp = pytest.importorskip("orbax.checkpoint")
from flax.training import checkpoints, train_state  # noqa: E402

PARAMS = {"dense": {"kernel": jax.numpy.ones((2, 3)), "bias": jax.numpy.zeros(3)}, "layers_0": {"w": jax.numpy.ones(2)}}
LABELS = {"dense": "b", "layers_0": "a"}
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "adamw": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.constant_schedule(1e-3))),
    "hyperparams": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-3),
    "masked": lambda: optax.masked(optax.adam(1e-3), {"dense": True, "layers_0": False}),
    "several": lambda: optax.multi_transform({"a": optax.adam(1e-3), "b": optax.set_to_zero()}, LABELS),
    "every_2": lambda: optax.MultiSteps(optax.adam(1e-3), 2),
}


def trained(optimizer: Any) -> Any:
    state = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=optimizer)
    for step in (1, 2):
        state = state.apply_gradients(grads=jax.tree.map(lambda leaf: jax.numpy.ones_like(leaf) * step, PARAMS))
    return state


def flax_bytes(folder: Path, state: Any) -> Path:
    (folder / "x.msgpack").write_bytes(flax.serialization.to_bytes(state))
    return folder / "x.msgpack"


def flax_training(folder: Path, state: Any) -> Path:
    return Path(checkpoints.save_checkpoint(folder, state, 1, orbax_checkpointer=None))


def orbax_standard(folder: Path, state: Any) -> Path:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "x", state)
    return folder / "x"


def orbax_pytree(folder: Path, state: Any) -> Path:
    ocp.PyTreeCheckpointer().save(folder / "x", state)
    return folder / "x"


@pytest.mark.filterwarnings("ignore")  # of flax and Orbax, of each other
@pytest.mark.parametrize(
    ("name", "write"),
    [
        *((name, write) for name in OPTIMIZERS for write in (flax_bytes, orbax_standard)),
        ("adamw", flax_training),
        ("several", orbax_pytree),
    ],
)
def test_optimizers_go_on_to_the_bit(tmp_path: Path, name: str, write: Callable[[Path, Any], Path]) -> None:
    optimizer = OPTIMIZERS[name]()
    state = trained(optimizer)
    ckptfmt.convert(write(tmp_path, state), tmp_path / "c.ckpt")
    fresh = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=optimizer)
    for template in (fresh, jax.eval_shape(lambda: trained(optimizer))):
        found = ckptfmt_jax.load(tmp_path / "c.ckpt", like=template)
        assert jax.tree.structure(found) == jax.tree.structure(state)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
            assert np.asarray(one, np.asarray(other).dtype).tobytes() == np.asarray(other).tobytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", [flax_bytes, orbax_standard])
def test_another_optimizer_is_told_by_name(tmp_path: Path, write: Callable[[Path, Any], Path]) -> None:
    ckptfmt.convert(write(tmp_path, trained(optax.adam(1e-3))), tmp_path / "c.ckpt")
    for other in (optax.sgd(0.1, momentum=0.9), optax.sgd(0.1), optax.chain(optax.adam(1e-3), optax.trace(0.9))):
        template = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=other)
        with pytest.raises(ckptfmt.MismatchError, match=r"opt_state/0"):
            ckptfmt_jax.load(tmp_path / "c.ckpt", like=template)


def test_named_chains_through_msgpack(tmp_path: Path) -> None:
    """flax 0.12 cannot write the OrderedDict of a named chain itself; it reads what stands for one in a dict."""
    optimizer = optax.named_chain(("clip", optax.clip(1.0)), ("adam", optax.adam(1e-3)))
    state = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=optimizer)
    state = state.apply_gradients(grads=jax.tree.map(lambda x: x + 0.5, PARAMS))
    ckptfmt_jax.save(tmp_path / "state.ckpt", state)
    ckptfmt.convert(tmp_path / "state.ckpt", tmp_path / "state.msgpack", allow_loss={"nesting", "value"})
    restored = flax.serialization.msgpack_restore((tmp_path / "state.msgpack").read_bytes())
    for name, part in state.opt_state.items():
        found = flax.serialization.from_state_dict(part, restored["opt_state"][name])
        assert jax.tree.structure(found) == jax.tree.structure(part)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, part))
    assert ckptfmt.convert(tmp_path / "state.msgpack", tmp_path / "back.ckpt").losses == ()
    back = ckptfmt_jax.load(tmp_path / "back.ckpt", like=state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jax.tree.all(jax.tree.map(np.array_equal, back, state))
