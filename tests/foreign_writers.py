"""Files of frameworks that are slow to import or warn, written by the frameworks themselves in a process of their own.

Run as a program: `python foreign_writers.py FOLDER`. Then the tests need neither jax nor flax nor Orbax.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
ORBAX_KINDS = {"ocdbt-zarr2": (True, False), "ocdbt-zarr3": (True, True), "plain-zarr2": (False, False)}


def flax(folder: Path) -> None:
    import flax.serialization as serialization
    import jax.numpy as jnp

    tree = {
        "params": {"w": MATRIX, "b": jnp.ones(3, jnp.bfloat16)},
        "layers": [MATRIX[0], (MATRIX[1],)],
        "step": 3,
        "lr": 0.5,
        "z": 1 + 2j,
        "scale": np.float32(2),
        "name": "x",
        "none": None,
    }
    (folder / "flax.msgpack").write_bytes(serialization.to_bytes(tree))
    serialization.MAX_CHUNK_SIZE = 16
    (folder / "flax-chunked.msgpack").write_bytes(serialization.msgpack_serialize(serialization.to_state_dict(tree)))


def flax_read(path: str, out: str) -> None:
    """Restore with flax what a conversion wrote, as an .npz of its leaves."""
    import flax.serialization as serialization
    import flax.traverse_util as traverse

    leaves = traverse.flatten_dict(serialization.msgpack_restore(Path(path).read_bytes()), sep="/")
    np.savez(out, **{name: np.asarray(leaf, np.float32) for name, leaf in leaves.items() if not isinstance(leaf, str)})


def orbax(folder: Path) -> None:
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    tree: dict[str, Any] = {
        "params": {"w": jnp.asarray(MATRIX), "b": jnp.ones(3, jnp.bfloat16)},
        "layers": [jnp.asarray(MATRIX[0]), (jnp.asarray(MATRIX[1]),)],
        "step": 3,
        "lr": 2.5,
        "empty": {},
        "host": MATRIX,
    }
    for name, (ocdbt, zarr3) in ORBAX_KINDS.items():
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)) as checkpointer:
            checkpointer.save(folder / f"orbax-{name}", tree)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax-standard", tree)


def orbax_tree(folder: Path, name: str) -> None:
    """The arrays of `tree.npz`, as one of the kinds."""
    import orbax.checkpoint as ocp

    ocdbt, zarr3 = ORBAX_KINDS[name]
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)) as checkpointer:
        checkpointer.save(folder / name, dict(np.load(folder / "tree.npz")))


def orbax_kinds(folder: Path) -> None:
    """Checkpoints of Orbax with whatever it can hold beside arrays of numbers, and its items."""
    import jax
    import jax.numpy as jnp
    import orbax.checkpoint as ocp
    import orbax.checkpoint.experimental.v1 as v1

    keys = {"rng": jax.random.key(7, impl="rbg"), "many": [jax.random.split(jax.random.key(1), 3)]}
    values = {"int": 3, "float": 2.5, "bool": True, "large": 1 << 63, "narrow": np.float32(3), "array": np.array(4.0)}
    text = {"a": "x", "b/c": "y", "é": ["ü"]}
    empty = {"none": None, "dict": {}, "list": [], "tuple": (), "zeros": jnp.zeros((4, 4))}
    small = {"int4": jnp.array([-8, 7], jnp.int4), "float8": jnp.array([1.5, -2], jnp.float8_e4m3fn)}
    tree = {"keys": keys, "values": values, "text": text, "empty": empty, "small": small}
    for name, (ocdbt, zarr3) in ORBAX_KINDS.items():
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)) as checkpointer:
            checkpointer.save(folder / name, args=ocp.args.PyTreeSave(tree, custom_metadata={"said": "of the tree"}))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "dotted", {"a.b": jnp.array([1, 2]), "a": {"b": jnp.array([8, 9])}})
        checkpointer.save(folder / "dots", {"a.b": jnp.array([1, 2]), "a": {"c": jnp.array([8, 9])}})
    options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics["loss"])
    with ocp.CheckpointManager(folder / "run", item_names=("state", "ema", "about", "random"), options=options) as run:
        items = ocp.args.Composite(
            state=ocp.args.StandardSave({"w": jnp.ones(2), "rng": keys["rng"]}),
            ema=ocp.args.PyTreeSave({"w": jnp.zeros(2)}),
            about=ocp.args.JsonSave({"name": "x"}),
            random=ocp.args.JaxRandomKeySave(jax.random.key(3)),
        )
        run.save(5, args=items, metrics={"loss": 1.5}, custom_metadata={"said": "of the step"})
    with ocp.CheckpointManager(folder / "single") as run:
        run.save(5, args=ocp.args.StandardSave({"w": jnp.ones(2)}))
    v1.save_pytree(folder / "v1", {"w": jnp.ones(2)}, custom_metadata={"said": "of it"})


def orbax_lost(folder: Path) -> None:
    """Arrays of several chunks, one of zeros alone; and a directory as it is while it is written."""
    import jax
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    tree = {"w": jnp.arange(8, dtype=jnp.float32), "zeros": jnp.zeros(8), "step": 3}
    args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=8), tree)
    for name, (ocdbt, zarr3) in {**ORBAX_KINDS, "plain-zarr3": (False, True)}.items():
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)) as checkpointer:
            checkpointer.save(folder / name, args=ocp.args.PyTreeSave(tree, save_args=args))

    class Interrupted(ocp.PyTreeCheckpointHandler):
        def finalize(self, directory: Any) -> None:
            super().finalize(directory)
            raise KeyboardInterrupt

    checkpointer = ocp.Checkpointer(Interrupted())
    try:
        checkpointer.save(folder / "unfinished", tree)
    except KeyboardInterrupt:
        return


def orbax_restore(folder: Path) -> None:
    """Restore with Orbax every checkpoint in a folder; `restored.pickle` has the trees by name, or its errors as text.
    Arrays are NumPy's, random keys their generator and their data."""
    import pickle

    import jax
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    def plain(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return f"key of {jax.random.key_impl(leaf)}", np.asarray(jax.random.key_data(leaf))
        return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf

    restored = {}
    with ocp.PyTreeCheckpointer() as checkpointer:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                try:
                    restored[path.name] = jax.tree.map(plain, checkpointer.restore(path))
                except Exception as error:
                    restored[path.name] = f"{type(error).__name__}: {error}"
    (folder / "restored.pickle").write_bytes(pickle.dumps(restored))


ORBAX_TREES = 40


def orbax_trees(folder: Path) -> None:
    """Random trees of what Orbax takes, in all of its kinds."""
    import random

    import jax
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    draw = random.Random(1)
    dtypes = ("float32", "bfloat16", "int4", "uint8", "bool", "float8_e5m2", "int32", "complex64")

    def leaf() -> Any:
        shape = tuple(draw.randint(1, 3) for _ in range(draw.randint(0, 3)))
        values = np.array([draw.randint(0, 1) for _ in range(int(np.prod(shape)))], "i1").reshape(shape)
        return draw.choice(
            [
                lambda: jnp.asarray(values).astype(draw.choice(dtypes)),
                lambda: values.astype(draw.choice(["f8", "i8", "?", "f2", "u2", ">f4", "c16"])),
                lambda: draw.choice([0, -3, 1 << 40, 1 << 63, True, False, 0.5, -0.0, float("inf")]),
                lambda: draw.choice([np.float32(0.5), np.int8(3), np.uint64(7), np.float64(2)]),
                lambda: draw.choice(["", "text", "é\n"]),
                lambda: jax.random.split(jax.random.key(3, impl=draw.choice(["rbg", "threefry2x32"])), 2),
                lambda: draw.choice([None, {}, [], ()]),
            ]
        )()

    def tree(depth: int) -> Any:
        kind = draw.randint(0, 3) if depth else 3
        count = draw.randint(1, 3)
        if kind == 0:
            return {draw.choice(["a", "b", "c.d", "0", "1", "é", "x y", "e/f"]): tree(depth - 1) for _ in range(count)}
        if kind == 1:
            return [tree(depth - 1) for _ in range(count)]
        return tuple(tree(depth - 1) for _ in range(count)) if kind == 2 else leaf()

    for number in range(ORBAX_TREES):
        kind = ocp.PyTreeCheckpointHandler(use_ocdbt=draw.random() < 0.5, use_zarr3=draw.random() < 0.5)
        with ocp.Checkpointer(kind) as checkpointer:
            try:
                checkpointer.save(folder / f"{number:02}", {"root": tree(3)})
            except (ValueError, TypeError, NotImplementedError) as error:
                print(f"Orbax refuses {number}: {str(error)[:200]}")
    orbax_restore(folder)


def orbax_all(folder: Path) -> None:
    for name in ("orbax-kinds", "orbax-lost", "orbax-trees"):
        (folder / name).mkdir()
        WRITERS[name](folder / name)


def keras_models() -> dict[str, Any]:
    """Models of Keras 3, some with the state of their optimizer."""
    import os

    os.environ["KERAS_BACKEND"] = "numpy"  # which needs nothing else, and writes the same
    import keras
    from keras import layers

    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="subclassed")
            self.blocks = [layers.Dense(3, name="a"), layers.Dense(3, name="b")]
            self.by_name = {"x": layers.Dense(2, use_bias=False)}

        def call(self, x: Any) -> Any:
            for block in self.blocks:
                x = block(x)
            return self.by_name["x"](x)

    keras.utils.set_random_seed(1)
    middle = [layers.Dense(3, dtype="bfloat16", name="half"), layers.Dropout(0.5, seed=3), layers.BatchNormalization()]
    trained = keras.Sequential([layers.Input((4,)), *middle, layers.Dense(2)], name="small")
    trained.compile("adam", "mse")
    trained.optimizer.build(trained.trainable_variables)  # and no training, which JAX would compile
    for number, variable in enumerate(trained.optimizer.variables):
        variable.assign(np.full(variable.shape, number))
    subclassed = Subclassed()
    subclassed(np.ones((1, 3)))
    models = {"trained": trained, "subclassed": subclassed}
    for mode in ("int8", "int4", "float8"):
        models[mode] = keras.Sequential([layers.Input((4,)), layers.Dense(5)])
        models[mode].quantize(mode)
    return models


def keras_files(folder: Path) -> None:
    """Models in all forms, and below `expected/` what Keras reads from its weights."""
    models = keras_models()
    import h5py
    from keras.src.saving.saving_lib import H5IOStore

    for name, model in models.items():
        path = folder / f"{name}.weights.h5"
        model.save_weights(path)
        if name != "subclassed":  # whose class is not registered
            model.save(folder / f"{name}.keras")
        if name == "trained":
            model.save(folder / f"{name}.h5")
        with h5py.File(path) as file:
            groups: list[str] = []
            file.visititems(lambda place, item: groups.append(place[:-5]) if place.endswith("/vars") else None)
        store = H5IOStore(path)
        found = {}
        for group in groups:
            entry = store.get(group)
            found |= {f"{group}/vars/{key}|{entry[key].dtype}": entry[key] for key in list(entry.keys())}
        np.savez(folder / f"{name}.npz", **{key: _as_numbers(array) for key, array in found.items()})
    models["trained"].save_weights(folder / "parts.weights.json", max_shard_size=1e-7)


def _as_numbers(array: Any) -> Any:
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def keras_load(folder: Path) -> None:
    """Load what was made of weights into models with others; `loaded.npz` says by file which come out otherwise."""
    for name, model in keras_models().items():
        for path in sorted(folder.glob(f"back-{name}*.weights.h5")):
            before = [np.asarray(variable) for variable in _variables(model)]
            for variable in _variables(model):
                variable.assign(np.zeros(variable.shape, np.float32))
            model.load_weights(path)
            for variable, value in zip(_variables(model), before, strict=True):
                found = np.asarray(variable)
                if found.dtype != value.dtype or found.tobytes() != value.tobytes():
                    raise AssertionError(f"{path.name}: {variable.path}")
            path.with_suffix(".loaded").touch()


def _variables(model: Any) -> list[Any]:
    """What Keras stores of a model, which is all but the states of random generators and metrics."""
    return [*model.weights, *(model.optimizer.variables if model.name == "small" else ())]


WRITERS = {"flax": flax, "orbax": orbax, "orbax-kinds": orbax_kinds, "orbax-lost": orbax_lost}
WRITERS |= {"orbax-restore": orbax_restore, "orbax-trees": orbax_trees, "orbax-all": orbax_all, "keras": keras_files}
WRITERS["keras-load"] = keras_load

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["flax-read", path, out]:
            flax_read(path, out)
        case ["orbax-tree", folder, name]:
            orbax_tree(Path(folder), name)
        case [kind, folder]:
            WRITERS[kind](Path(folder))
