"""Makes the checkpoints in `tensorflow/`, and what TensorFlow reads from them, in `expected.json`.

With tensorflow-cpu 2.21.0 (which brings Keras 3.15.1): `python make_tensorflow.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent / "tensorflow"
MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
DTYPES = [
    *("float32", "float64", "int32", "uint8", "int16", "int8", "complex64", "int64", "bool", "bfloat16", "uint16"),
    *("complex128", "float16", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"),
]


class Parts(tf.Module):
    """Objects in all containers, a string, and a table."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = [tf.Variable(MATRIX, name="first"), tf.Variable(MATRIX[0], name="block/second")]
        self.unnamed = [tf.Variable(1.0), tf.Variable(2.0)]
        self.by_key = {"x/y": tf.Variable(3, name="third"), "a.b": tf.Variable(4, name="fourth")}
        self.text = tf.Variable(["ü", b"\xff\0", ""], name="text")
        self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        self.table.insert(["key"], [5])

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def __call__(self, x: Any) -> Any:
        return x * self.unnamed[0]


def objects(folder: Path) -> None:
    """Two steps; an optimizer with slots, a counter, and an iterator, which is no tensor of numbers."""
    parts, optimizer = Parts(), tf.compat.v1.train.AdamOptimizer(0.5)
    optimizer.apply_gradients([(tf.ones_like(weight), weight) for weight in parts.weights])
    iterator = iter(tf.data.Dataset.range(5))
    next(iterator)
    step = tf.Variable(7, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=parts, optimizer=optimizer, iterator=iterator, step=step)
    manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
    manager.save()
    step.assign_add(1)
    manager.save()


def keras_model(folder: Path) -> None:
    """A model of Keras 3 whose weights are first met in its optimizer."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((3,)), keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
    model = keras.Sequential(layers, name="small")
    model.compile(keras.optimizers.Adam(), "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 1)), verbose=0)
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(folder / "model")


def saver(folder: Path) -> None:
    """TensorFlow 1: names, one variable in parts."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("dense/kernel", initializer=MATRIX, use_resource=False)
        v1.get_variable("dense/kernel/Adam", initializer=MATRIX + 1, use_resource=True)
        v1.get_variable(
            "embedding",
            (7, 2),
            initializer=v1.random_uniform_initializer(seed=1),
            partitioner=v1.fixed_size_partitioner(3),
        )
        v1.get_variable("global_step", initializer=np.int64(3))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"), global_step=3, write_meta_graph=False)


def save(prefix: Path, tensors: dict[str, Any], slices: dict[str, str]) -> None:
    names = list(tensors)
    data = [tf.convert_to_tensor(value) for value in tensors.values()]
    places = [slices.get(name, "") for name in names]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=places, tensors=data)


def sharded(folder: Path) -> None:
    """Two files, with a part of a variable in each, and names that are escaped in the keys of parts."""
    long = np.arange(200, dtype=np.int16)
    odd = "odd\xff\0name"
    half = MATRIX.astype(ml_dtypes.bfloat16)
    some = {"first": MATRIX, "long": long[:70], odd: MATRIX[:1], "half": half[:, :1]}
    save(folder / "a", some, {"long": "200 0,70", odd: "3 4 0,1:-", "half": "3 4 -:0,1"})
    more = {"second": MATRIX + 1, "long": long[70:], odd: MATRIX[1:], "half": half[:, 1:]}
    save(folder / "b", more, {"long": "200 70,130", odd: "3 4 1,2:-", "half": "3 4 -:1,3"})
    prefixes = [str(folder / "a"), str(folder / "b")]
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(folder / "model"))


def dtypes(folder: Path) -> None:
    """Each dtype, with scalars, empty tensors and strings."""
    tensors: dict[str, Any] = {}
    for name in DTYPES:
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        tensors[name] = (np.arange(6) % 2).astype(np.float32).astype(dtype).reshape(2, 3)
        tensors[f"{name}/scalar"] = np.ones((), dtype)
        tensors[f"{name}/empty"] = np.zeros((0, 3), dtype)
    for name in ("qint8", "quint8", "qint16", "quint16", "qint32"):
        tensors[name] = tf.bitcast(tf.constant(np.array([1, 2], name[1:])), tf.dtypes.as_dtype(name))
    tensors["text"] = np.array([["a", "ü"], ["", "x" * 300]], object)
    tensors["text/scalar"] = np.array(b"\xff", object)
    save(folder / "all", tensors, {})


def saved_model(folder: Path) -> None:
    tf.saved_model.save(Parts(), folder)
    (folder / "saved_model.pb").write_bytes(b"")  # its graph, of which nothing is read
    (folder / "fingerprint.pb").unlink()
    (folder / "assets").rmdir()


MAKERS = [objects, keras_model, saver, sharded, dtypes, saved_model]


def expected() -> None:
    """What TensorFlow reads: dtype, shape, and the bytes of numbers, or strings as text in Latin-1."""
    found = {}
    for index in sorted(HERE.rglob("*.index")):
        reader = tf.train.load_checkpoint(str(index.with_suffix("")))
        read = found[str(index.relative_to(HERE))] = {}
        for key, dtype in sorted(reader.get_variable_to_dtype_map().items()):
            if dtype == tf.variant or key == "_CHECKPOINTABLE_OBJECT_GRAPH":
                continue
            value = np.asarray(reader.get_tensor(key))
            if dtype == tf.string:
                read[key] = ["string", value.shape, [item.decode("latin-1") for item in value.reshape(-1)]]
            else:
                read[key] = [value.dtype.name, value.shape, value.tobytes().hex()]
    (HERE / "expected.json").write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    for make in MAKERS:
        (HERE / make.__name__).mkdir(parents=True)
        make(HERE / make.__name__)
    expected()
