"""JAX's adapter on meshes of eight CPU devices, and in two processes: what is stored of sharded arrays, and what is
read for others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.format.dtypes import dtype_named
from ckptfmt.frameworks.sources import Sharded
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import filled

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install ckptfmt[jax]")
jax.config.update("jax_num_cpu_devices", 8)  # before any device is used; all tests are collected before the first runs

import ckptfmt_jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from ckptfmt_jax import ADAPTER, templates  # noqa: E402
from jax.sharding import NamedSharding, SingleDeviceSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

ROOT = Path(__file__).parents[1]
MESHES = {"8": ((8,), ("x",)), "4x2": ((4, 2), ("x", "y")), "2x2": ((2, 2), ("x", "y"))}
SHARDINGS = {
    "one device": ("8", None),
    "rows": ("8", P("x")),
    "columns": ("8", P(None, "x")),
    "replicated": ("4x2", P()),
    "rows, twice each": ("4x2", P("x")),
    "columns, four times each": ("4x2", P(None, "y")),
    "cells": ("4x2", P("y", "x")),
    "rows over both axes": ("4x2", P(("y", "x"))),
    "four of eight devices": ("2x2", P("x", "y")),
}


def sharding_of(name):
    mesh_name, spec = SHARDINGS[name]
    if spec is None:
        return SingleDeviceSharding(jax.devices()[5])
    shape, axes = MESHES[mesh_name]
    devices = np.asarray(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return NamedSharding(jax.sharding.Mesh(devices, axes), spec)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ckpt"


@pytest.mark.parametrize("before", SHARDINGS)
@pytest.mark.parametrize("after", SHARDINGS)
def test_from_any_sharding_to_any(path, before, after):
    """Each byte is stored once and read once, however many devices hold it."""
    array = np.random.default_rng(0).random((64, 32), np.float32)
    ckptfmt_jax.save(path, {"w": jax.device_put(array, sharding_of(before))})
    like = {"w": jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding_of(after))}
    with ckptfmt.open(path) as checkpoint:
        assert_same_tree(checkpoint.load(), {"w": array})
        assert checkpoint["w"].stored_bytes == array.nbytes
        already = checkpoint.bytes_read
        found = checkpoint.load(like=like)["w"]
        assert checkpoint.bytes_read - already == array.nbytes
    assert found.sharding == sharding_of(after)
    assert found.committed
    assert np.asarray(found).tobytes() == array.tobytes()


@given(
    st.sampled_from(list(SHARDINGS)),
    st.sampled_from(list(SHARDINGS)),
    st.sampled_from(["int4", "int2", "float4_e2m1fn", "bool", "bfloat16", "float8_e4m3fn", "complex64", "uint8"]),
    st.sampled_from([(8, 8), (8, 24, 3), (16, 8, 0), (0, 8)]),
    st.sampled_from([None, "zstd"]),
    st.sampled_from(["file", "loose", "packed"]),
)
def test_any_dtype_in_any_sharding(scratch, before, after, name, shape, compression, layout):
    array = filled(dtype_named(name).numpy, shape, 3)
    with scratch() as folder:
        tree = {"w": jax.device_put(array, sharding_of(before))}
        ckptfmt_jax.save(f"{folder}/x", tree, compression=compression, layout=layout)
        like = {"w": jax.ShapeDtypeStruct(shape, array.dtype, sharding=sharding_of(after))}
        found = ckptfmt_jax.load(f"{folder}/x", like)["w"]
        assert found.sharding == sharding_of(after)
        assert_same_tree(np.asarray(found), array)
        for shard in found.addressable_shards:
            assert_same_tree(np.ascontiguousarray(shard.data), np.ascontiguousarray(array[shard.index]))


@pytest.mark.parametrize("name", [name for name, (_, spec) in SHARDINGS.items() if spec is not None])
def test_only_one_replica_of_each_shard_is_handed_over(name):
    array = jax.device_put(np.zeros((16, 16), np.float32), sharding_of(name))
    source = ADAPTER.lower(array)
    assert isinstance(source, Sharded)
    assert sum(shard.source.size for shard in source.shards) == array.size
    held = {shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}
    assert {shard.source.ctypes.data for shard in source.shards} <= held  # without a copy


def test_scalars_are_replicated(path):
    replicated = sharding_of("replicated")
    tree = {"step": jax.device_put(jnp.int32(7), replicated), "key": jax.device_put(jax.random.key(3), replicated)}
    ckptfmt_jax.save(path, tree)
    for like in (tree, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), tree)):
        found = ckptfmt_jax.load(path, like)
        assert found["step"].sharding == replicated
        assert found["step"].item() == 7
        assert found["key"].sharding == replicated
        assert jax.random.key_data(found["key"]).tolist() == [0, 3]


def test_sharded_keys(path):
    keys = jax.device_put(jax.random.split(jax.random.key(1), (8, 2)), sharding_of("rows"))
    ckptfmt_jax.save(path, [keys])
    found = ckptfmt_jax.load(path, [jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=sharding_of("rows"))])[0]
    assert found.sharding.is_equivalent_to(keys.sharding, 2)
    assert (jax.random.key_data(found) == jax.random.key_data(keys)).all()


def test_aliases_of_sharded_arrays(path):
    tied = jax.device_put(jnp.ones((8, 8)), sharding_of("cells"))
    other = jax.device_put(jnp.ones((8, 8)), sharding_of("cells"))
    tree = {"a": tied, "b": [tied, other]}
    assert ckptfmt_jax.save(path, tree).tensors == 2
    with ckptfmt.open(path) as checkpoint:
        found = checkpoint.load(like=tree)
        assert checkpoint.bytes_read < 3 * tied.nbytes  # each once, with the gap between them
    assert found["a"] is found["b"][0]
    assert found["a"] is not found["b"][1]


@pytest.mark.parametrize("name", ["rows", "replicated", "one device"])
def test_memory_is_taken_over_without_a_copy(path, name, monkeypatch):
    array = np.random.default_rng(0).random((1024, 256), np.float32)
    ckptfmt.save(path, array)
    read = []
    aligned = templates.aligned
    monkeypatch.setattr(templates, "aligned", lambda *asked: read.append(aligned(*asked)) or read[-1])
    found = ckptfmt_jax.load(path, jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding_of(name)))
    (memory,) = read
    for shard in found.addressable_shards:
        row = shard.index[0].start or 0
        assert shard.data.unsafe_buffer_pointer() == memory[row:].ctypes.data


def test_a_template_of_arrays_gives_their_shardings(path):
    tree = {"w": jax.device_put(jnp.arange(64.0).reshape(8, 8), sharding_of("cells")), "free": jnp.ones(3)}
    ckptfmt_jax.save(path, tree)
    found = ckptfmt_jax.load(path, tree)
    assert found["w"].sharding == tree["w"].sharding
    assert not found["free"].committed  # goes wherever it is used
    assert (found["w"] + found["free"][0]).sharding == tree["w"].sharding


def test_eval_shape_under_a_mesh(path):
    """What `eval_shape` gives knows the mesh, but not its devices."""
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    array = jax.device_put(np.arange(64, dtype=np.float32).reshape(8, 8), NamedSharding(mesh, P("x")))
    ckptfmt_jax.save(path, {"a": [array]})
    like = jax.eval_shape(lambda w: {"a": [w]}, array)
    assert isinstance(like["a"][0].sharding.mesh, jax.sharding.AbstractMesh)
    with jax.set_mesh(mesh):
        assert ckptfmt_jax.load(path, like)["a"][0].sharding.is_equivalent_to(array.sharding, 2)
    with pytest.raises(ckptfmt.InputError, match="set_mesh") as caught:
        ckptfmt_jax.load(path, like)
    assert (caught.value.code, caught.value.tensor) == ("bad-option", "a/0")
    found = ckptfmt_jax.load(path, like, sharding=sharding_of("columns"))
    assert found["a"][0].sharding == sharding_of("columns")


def test_shardings_are_a_prefix(path):
    tree = {"model": {"a": jnp.ones((8, 8)), "b": jnp.ones((8, 16))}, "step": jnp.int32(3), "n": 1}
    ckptfmt_jax.save(path, tree)
    like = jax.eval_shape(lambda: tree)
    rows, replicated = sharding_of("rows"), sharding_of("replicated")
    found = ckptfmt_jax.load(path, like, sharding={"model": rows, "step": replicated, "n": None})
    assert [found["model"][key].sharding for key in "ab"] == [rows, rows]
    assert found["step"].sharding == replicated
    assert not found["n"].committed
    everywhere = ckptfmt_jax.load(path, tree, sharding=replicated)
    assert everywhere.pop("n") == 1
    assert {array.sharding for array in jax.tree.leaves(everywhere)} == {replicated}


@pytest.mark.parametrize("shape", [(), (7, 8)])
def test_a_sharding_that_does_not_fit_is_an_error(path, shape):
    ckptfmt_jax.save(path, {"w": jnp.ones(shape)})
    with pytest.raises(ckptfmt.InputError, match="does not fit the shape") as caught:
        ckptfmt_jax.load(path, {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}, sharding=sharding_of("rows"))
    assert (caught.value.code, caught.value.tensor) == ("bad-option", "w")


@pytest.mark.parametrize("kind", ["pinned_host", "unpinned_host"])
def test_memory_kinds(path, kind):
    sharding = sharding_of("rows").with_memory_kind(kind)
    array = jax.device_put(np.arange(64, dtype=np.float32).reshape(8, 8), sharding)
    ckptfmt_jax.save(path, [array])
    found = ckptfmt_jax.load(path, [array])[0]
    assert found.sharding == sharding
    assert np.array_equal(found, array)


# ---- two processes


def test_a_coordinator_needs_a_cluster():
    with pytest.raises(ckptfmt.InputError, match=r"jax.distributed.initialize\(\) first") as caught:
        ckptfmt_jax.JaxCoordinator()
    assert caught.value.code == "bad-option"


PROCESS = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
address, rank, path = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(rank))
import ckptfmt, ckptfmt_jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P

expected = np.arange(2048 * 1024, dtype=np.float32).reshape(2048, 1024)
mesh = jax.make_mesh((4,), ("x",))
read = {}
for name, spec, verify in [("rows", P("x"), True), ("columns", P(None, "x"), False), ("replicated", P(), True)]:
    like = {"w": jax.ShapeDtypeStruct(expected.shape, jnp.float32, sharding=NamedSharding(mesh, spec))}
    with ckptfmt.open(path) as checkpoint:
        found = checkpoint.load(like=like, verify=verify)["w"]
        read[name] = checkpoint.bytes_read
    assert not found.is_fully_addressable
    for shard in found.addressable_shards:
        assert np.array_equal(shard.data, expected[shard.index])
    assert float(jax.jit(jnp.max)(found)) == expected[-1, -1]  # the processes work together on it
state = {"w": jax.device_put(expected, NamedSharding(mesh, P("x"))), "step": 7, "host": np.arange(3)}
state |= {"key": jax.jit(lambda: jax.random.key(3), out_shardings=NamedSharding(mesh, P()))(), "local": jnp.ones(5)}
ckptfmt_jax.save(path + ".together", state)
with ckptfmt_jax.JaxCoordinator(timeout=60) as coordinator:  # one that is made by hand
    ckptfmt_jax.save(path + ".together", state, coordinator=coordinator, overwrite=True, paged=True)
found = ckptfmt_jax.load(path + ".together", state)
assert float(jax.jit(jnp.max)(found["w"])) == expected[-1, -1]
assert jax.random.key_data(found["key"]).tolist() == [0, 3]
try:
    ckptfmt_jax.save(path + ".alone", state, coordinator=None)
except ckptfmt.InputError as error:
    read["alone"] = error.code
print(json.dumps(read))
"""


def test_two_processes(path):
    """Each reads what its devices need, and stores what they hold."""
    array = np.arange(2048 * 1024, dtype=np.float32).reshape(2048, 1024)
    ckptfmt.save(path, {"w": array})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}
    commands = [[sys.executable, "-c", textwrap.dedent(PROCESS), address, str(rank), str(path)] for rank in range(2)]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    results = [process.communicate(timeout=120) for process in processes]
    for process, (out, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors
        assert json.loads(out.splitlines()[-1]) == {
            "rows": array.nbytes // 2,  # one of the two blocks
            "columns": array.nbytes // 2,
            "replicated": array.nbytes,
            "alone": "shards-missing",
        }
    stored = ckptfmt.load(f"{path}.together")
    assert np.array_equal(stored["w"], array)
    assert (stored["step"], stored["local"].tolist(), stored["host"].tolist()) == (7, [1] * 5, [0, 1, 2])
    with ckptfmt.open(f"{path}.together") as checkpoint:
        assert checkpoint.format == (1, 1), "with pages"
        assert checkpoint["w"].stored_bytes == array.nbytes
