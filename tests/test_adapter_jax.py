"""JAX's adapter on one device: dtypes, aliases, weak types, random keys, nodes of pytrees, templates."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given

import ckptfmt
from ckptfmt.format.dtypes import DTYPES, dtype_named
from ckptfmt.testing import assert_same_tree, strategies
from ckptfmt.testing.adapters import AdapterSuite

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install ckptfmt[jax]")

import ckptfmt_jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from ckptfmt_jax import ADAPTER  # noqa: E402
from ckptfmt_jax.arrays import OnDevice  # noqa: E402

FLOAT6 = {"float6_e2m3fn", "float6_e3m2fn"}  # from JAX 0.11 on
LACKING = sorted({"bcomplex32", "complex32", "float8_e5m3fnu"} | (FLOAT6 if jax.__version_info__ < (0, 11) else set()))
WIDE = ["complex128", "float64", "int64", "uint64"]  # only with jax_enable_x64


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ckpt"


def described(tree):
    return jax.eval_shape(lambda: tree)


def bits(array):
    return np.asarray(array).tobytes()


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Record:
    weight: Any
    name: str = "none"


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: Any
    activation: Any = dataclasses.field(default=None, metadata={"static": True})


class Pair:
    """Registered without keys."""

    def __init__(self, left, right, name):
        self.left, self.right, self.name = left, right, name


jax.tree_util.register_pytree_node(Pair, lambda p: ((p.left, p.right), p.name), lambda name, c: Pair(*c, name))


class Twins:
    """Registered with one key for two children."""


jax.tree_util.register_pytree_with_keys(
    Twins, lambda _: ([(jax.tree_util.GetAttrKey("a"), 1)] * 2, None), lambda _, children: Twins()
)


# ---- arrays


def test_a_tree_comes_back_as_it_was(path):
    tree = {
        "layers": [{"w": jnp.arange(6.0).reshape(2, 3)}, {"w": jnp.ones((4,), jnp.bfloat16)}],
        "betas": (0.9, 0.95),
        "step": 3,
        "none": None,
        "host": np.arange(3),
        "names": ("a", b"b", 1j),
        "empty": [{}, (), []],
        "by number": {0: jnp.int8(4), -1: jnp.uint8(5)},
    }
    report = ckptfmt_jax.save(path, tree)
    assert report.tensors == 5
    with jax.enable_x64(True):
        found = ckptfmt_jax.load(path)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert list(found) == list(tree)
    assert jax.tree.all(jax.tree.map(lambda one, other: np.array_equal(one, other), found, tree))
    assert all(isinstance(found["layers"][i]["w"], jax.Array) for i in range(2))
    assert found["layers"][1]["w"].dtype == jnp.bfloat16


def test_the_framework_is_found_by_name(path):
    ckptfmt.save(path, {"w": jnp.ones(3)})
    assert isinstance(ckptfmt.load(path, framework="jax")["w"], jax.Array)


@given(strategies.arrays())
def test_every_bit_pattern_survives(scratch, array):
    """Any memory layout of any dtype, saved from NumPy, loaded into JAX and saved from there."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    if native.dtype.kind in "mM":
        native = native.view(np.int64)
    with scratch() as folder, jax.enable_x64(True):
        name = native.dtype.name
        ckptfmt.save(f"{folder}/numpy", {"a": array})
        if not ADAPTER.supports(name):
            assert name in LACKING
            return
        with pytest.warns(ckptfmt.UnknownTagWarning) if array.dtype.kind in "mM" else nullcontext():
            found = ckptfmt_jax.load(f"{folder}/numpy")["a"]
        assert (found.shape, found.dtype) == (native.shape, native.dtype)
        ckptfmt_jax.save(f"{folder}/jax", {"a": found})
        assert_same_tree(ckptfmt.load(f"{folder}/jax"), {"a": native})


@pytest.mark.parametrize("x64", [False, True])
def test_which_dtypes_there_are(x64):
    with jax.enable_x64(x64):
        assert [name for name in sorted(DTYPES) if not ADAPTER.supports(name)] == sorted(
            LACKING + ([] if x64 else WIDE)
        )


@pytest.mark.parametrize("name", WIDE + LACKING)
def test_a_dtype_that_is_lacking_is_an_error_or_a_cast(path, name):
    values = np.array([1, 2, 3]).astype(dtype_named(name).numpy)
    ckptfmt.save(path, {"model": {"w": values}})
    with pytest.raises(ckptfmt.MismatchError, match="jax has no tensors of the dtype of model/w") as caught:
        ckptfmt_jax.load(path)
    assert (caught.value.code, caught.value.tensor, caught.value.found) == ("framework-dtype", "model/w", name)
    found = ckptfmt_jax.load(path, cast=True)["model"]["w"]
    stand_in = {"complex128": "complex64", "float64": "float32", "int64": "int32", "uint64": "uint32"}
    assert found.dtype.name == stand_in.get(name, "complex64" if "complex" in name else "float32")
    assert found.tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62])
def test_integers_are_never_wrapped(path, value):
    ckptfmt.save(path, {"n": np.array([1, value])})
    with pytest.raises(ckptfmt.MismatchError, match="do not fit into int32") as caught:
        ckptfmt_jax.load(path, cast=True)
    assert (caught.value.code, caught.value.tensor) == ("framework-dtype", "n")


def test_a_template_of_a_disabled_dtype_is_an_error(path):
    """`jax.device_put` would give float32."""
    ckptfmt.save(path, {"w": np.ones(3)})
    like = {"w": jax.ShapeDtypeStruct((3,), np.float64)}
    with pytest.raises(ckptfmt.MismatchError, match="jax_enable_x64") as caught:
        ckptfmt_jax.load(path, like)
    assert (caught.value.code, caught.value.tensor) == ("framework-dtype", "w")
    with jax.enable_x64(True):
        assert ckptfmt_jax.load(path, like)["w"].dtype == np.float64


def test_a_template_of_another_dtype_is_an_error_or_a_cast(path):
    ckptfmt.save(path, {"w": np.array([1.5, 2.5])})
    like = {"w": jax.ShapeDtypeStruct((2,), jnp.bfloat16)}
    with pytest.raises(ckptfmt.MismatchError, match=r"dtype: w \(found float64, expected bfloat16\)"):
        ckptfmt_jax.load(path, like)
    found = ckptfmt_jax.load(path, like, cast=True)["w"]
    assert found.dtype == jnp.bfloat16
    assert found.tolist() == [1.5, 2.5]


def test_arrays_on_the_host_go_over_without_a_copy():
    array = jnp.arange(1000.0)
    source = ADAPTER.lower(array)
    assert source.ctypes.data == array.unsafe_buffer_pointer()


@pytest.mark.parametrize("shape", [(5,), (100, 300), (3, 700, 64)])
def test_loaded_memory_is_taken_over_without_a_copy(path, shape):
    """Also that of parts, and of a mapping: what JAX holds begins where NumPy read it."""
    array = np.random.default_rng(0).random(shape, np.float32)
    ckptfmt.save(path, {"w": array})
    taken = []

    class Seen(type(ADAPTER)):
        def wrap(self, array):
            taken.append(array.ctypes.data)
            return super().wrap(array)

    for mmap in [True] if array.nbytes < 256 << 10 else [True, False]:  # small tensors are read together, and copied
        found = ckptfmt.load(path, framework=Seen(), mmap=mmap)["w"]
        assert found.unsafe_buffer_pointer() == taken.pop()
        assert bits(found) == array.tobytes()


def test_elements_on_a_device_are_copied_as_they_are_read():
    array = jnp.arange(60.0).reshape(3, 4, 5)
    source = OnDevice(array)
    assert (source.shape, source.dtype) == (array.shape, np.float32)
    for region in [(slice(0, 3), slice(0, 4), slice(0, 5)), (slice(1, 2), slice(0, 4), slice(2, 4))]:
        assert source[region].tolist() == np.asarray(array)[region].tolist()


@pytest.mark.parametrize("dtype", ["float32", "int4", "int2", "float4_e2m1fn", "bool", "complex64", "float8_e5m2"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7,), (2, 3, 5)])
@pytest.mark.parametrize("layout", ["file", "loose", "packed"])
def test_shapes(path, dtype, shape, layout):
    array = jax.device_put(strategies.filled(dtype_named(dtype).numpy, shape, 1))
    ckptfmt_jax.save(path, [array], layout=layout)
    for found in (ckptfmt_jax.load(path), ckptfmt_jax.load(path, described([array]))):
        assert (found[0].shape, found[0].dtype) == (shape, array.dtype)
        assert bits(found[0]) == bits(array)


def test_aliases_stay_aliases(path):
    tied, empty, small = jnp.ones((4, 4)), jnp.zeros((0, 2)), jnp.ones(3, jnp.int4)
    tree = {"a": tied, "b": [tied, jnp.ones((4, 4))], "c": (empty, empty), "d": (small, small)}
    assert ckptfmt_jax.save(path, tree).tensors == 4
    for found in (ckptfmt_jax.load(path), ckptfmt_jax.load(path, tree), ckptfmt_jax.load(path, described(tree))):
        assert found["a"] is found["b"][0]
        assert found["a"] is not found["b"][1]
        assert found["c"][0] is found["c"][1]
        assert found["d"][0] is found["d"][1]


def test_aliases_that_are_asked_for_differently_are_different(path):
    tied = jnp.ones(4)
    ckptfmt_jax.save(path, [tied, tied])
    like = [jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.bfloat16)]
    found = ckptfmt_jax.load(path, like, cast=True)
    assert [array.dtype for array in found] == [jnp.float32, jnp.bfloat16]


def test_what_has_no_elements_is_refused(path):
    gone = jnp.ones(3)
    gone.delete()
    key = jax.random.key(0)
    key.delete()
    for value, words in [(gone, "deleted"), (key, "deleted"), (jax.ShapeDtypeStruct((3,), jnp.float32), "cannot")]:
        with pytest.raises(ckptfmt.InputError, match=words) as caught:
            ckptfmt_jax.save(path, {"a": [value]})
        assert (caught.value.code, caught.value.tensor) == ("unsupported-leaf", "a/0")

    def save(x):
        ckptfmt_jax.save(path, {"a": [x]})

    for value in (jnp.ones(3), jax.random.key(0)):
        with pytest.raises(ckptfmt.InputError, match="traced") as caught:
            jax.jit(save)(value)
        assert (caught.value.code, caught.value.tensor) == ("unsupported-leaf", "a/0")
    assert not path.exists()


def test_arrays_cannot_be_filled(path):
    tree = {"w": jnp.ones(3)}
    ckptfmt_jax.save(path, tree)
    with pytest.raises(ckptfmt.MismatchError, match="read-only in the target: w"):
        ckptfmt.load(path, into=tree)


# ---- weak types


@pytest.mark.parametrize(
    "make",
    [
        lambda: jnp.asarray(0.25),
        lambda: jnp.asarray(7),
        lambda: jnp.asarray(1j),
        lambda: jnp.full((2, 3), 0.5),
        lambda: jnp.full((0, 3), 1),
    ],
)
def test_weak_types_come_back_with_a_template(path, make):
    weak = make()
    assert weak.weak_type
    ckptfmt_jax.save(path, [weak])
    assert not ckptfmt_jax.load(path)[0].weak_type
    for like in ([weak], described([weak])):
        found = ckptfmt_jax.load(path, like)[0]
        assert found.weak_type
        assert (found.shape, found.dtype, bits(found)) == (weak.shape, weak.dtype, bits(weak))
        assert (found * jnp.bfloat16(2)).dtype == (weak * jnp.bfloat16(2)).dtype
    strong = jax.ShapeDtypeStruct(weak.shape, weak.dtype)
    assert not ckptfmt_jax.load(path, [strong])[0].weak_type


# ---- numbers


def test_numbers_where_arrays_are_asked_for(path):
    tree = {"step": 7, "rate": 0.5, "on": True}
    ckptfmt_jax.save(path, tree)
    found = ckptfmt_jax.load(path, described(tree))
    assert {key: (value.dtype.name, value.weak_type, value.item()) for key, value in found.items()} == {
        "step": ("int32", True, 7),
        "rate": ("float32", True, 0.5),
        "on": ("bool", False, True),
    }
    assert ckptfmt_jax.load(path, tree) == tree


@pytest.mark.parametrize(
    ("number", "dtype", "cast"),
    [
        (1 << 40, "int32", True),
        (-1, "uint32", True),
        (0.5, "int32", True),
        (1j, "float32", True),
        (1 << 70, "float32", True),
        (2**24 + 1, "float32", True),
        (np.float64(0.1), "float32", False),
    ],
)
def test_numbers_that_do_not_fit(path, number, dtype, cast):
    ckptfmt.save(path, {"n": number})
    with pytest.raises(ckptfmt.MismatchError, match="dtype: n ") as caught:
        ckptfmt_jax.load(path, {"n": jax.ShapeDtypeStruct((), jnp.dtype(dtype))}, cast=cast)
    assert caught.value.code == "mismatch"


def test_arrays_where_numbers_are_asked_for(path):
    """A fresh flax TrainState has `step=0`; one that has been trained has an array there."""
    stored = {"step": jnp.int32(7), "rate": jnp.float32(0.5), "on": jnp.bool_(True), "wide": jnp.int32(3)}
    ckptfmt_jax.save(path, stored)
    found = ckptfmt_jax.load(path, {"step": 0, "rate": 0.0, "on": False, "wide": 0})
    assert found == {"step": 7, "rate": 0.5, "on": True, "wide": 3}
    assert [type(value) for value in found.values()] == [int, float, bool, int]
    with pytest.raises(ckptfmt.MismatchError, match=r"kind: rate \(found tensor, expected int\)"):
        ckptfmt_jax.load(path, {"step": 0, "rate": 0, "on": False, "wide": 0})


# ---- random keys


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_random_keys(path, impl, shape):
    keys = jax.random.split(jax.random.key(5, impl=impl), shape) if shape else jax.random.key(5, impl=impl)
    ckptfmt_jax.save(path, {"k": keys, "alias": keys})
    for found in (ckptfmt_jax.load(path), ckptfmt_jax.load(path, described({"k": keys, "alias": keys}))):
        assert found["k"].dtype == keys.dtype
        assert found["k"].shape == shape
        assert bits(jax.random.key_data(found["k"])) == bits(jax.random.key_data(keys))
    raw = ckptfmt.load(path)["k"]  # NumPy has no keys
    assert raw.dtype == np.uint32
    assert raw.tobytes() == bits(jax.random.key_data(keys))
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.load(like={"k": keys, "alias": raw})["alias"].dtype == np.uint32


def test_keys_of_another_generator_are_refused(path):
    """Their data would fit, and give other numbers."""
    ckptfmt_jax.save(path, {"a": [jax.random.key(1, impl="rbg")]})
    like = {"a": [jax.random.key(0, impl="unsafe_rbg")]}
    words = r"kind: a/0 \(found jax.key rbg, expected jax.key unsafe_rbg\)"
    for template in (like, described(like)):
        with pytest.raises(ckptfmt.MismatchError, match=words) as caught:
            ckptfmt_jax.load(path, template)
        assert caught.value.report.kind


def test_keys_of_an_unknown_generator_are_their_data(path):
    from ckptfmt.frameworks.adapter import Tagged

    class Future:
        framework, lower = "jax", staticmethod(lambda value: Tagged("jax.key", "next", np.zeros(3, np.uint32), None))

    ckptfmt.frameworks.adapter.register(Future)
    try:
        ckptfmt.save(path, {"k": object()})
    finally:
        ckptfmt.frameworks.adapter.register(ADAPTER)
    with pytest.warns(ckptfmt.UnknownTagWarning, match="'next'"):
        found = ckptfmt_jax.load(path)
    assert found["k"].shape == (3,)


def test_legacy_keys_are_arrays(path):
    key = jax.random.PRNGKey(3)
    ckptfmt_jax.save(path, {"k": key})
    assert bits(ckptfmt_jax.load(path)["k"]) == bits(key)
    assert ckptfmt_jax.load(path, {"k": jax.random.key(0)})["k"].dtype == jax.random.key(0).dtype


# ---- nodes


def make_nodes(value):
    return {
        "point": Point(jnp.full(2, value), None),
        "record": Record(jnp.full(3, value)),
        "layer": Layer(jnp.full(4, value), jnp.tanh),
        "pair": Pair(jnp.full(5, value), {"deep": Point((jnp.full(6, value),), [])}, "aux"),
        "default": defaultdict(list, {"b": jnp.full(1, value), "a": [jnp.full(1, value)]}),
        "ordered": OrderedDict(z=jnp.full(1, value), a=OrderedDict()),
        "partial": jax.tree_util.Partial(jnp.add, jnp.full(2, value)),
    }


def test_nodes_come_back_like_a_template(path):
    tree = make_nodes(3.5)
    ckptfmt_jax.save(path, tree)
    for like in (
        make_nodes(0.0),
        {**described({k: v for k, v in tree.items() if k != "record"}), "record": tree["record"]},
    ):
        found = ckptfmt_jax.load(path, like)
        for name in tree:
            assert type(found[name]) is type(tree[name])
        assert jax.tree.structure({**found, "record": 0}) == jax.tree.structure({**tree, "record": 0})
        for one, other in zip(
            jax.tree.leaves({**found, "record": found["record"].weight}),
            jax.tree.leaves({**tree, "record": tree["record"].weight}),
            strict=True,
        ):
            assert bits(one) == bits(other)
        assert found["layer"].activation is jnp.tanh
        assert found["pair"].name == "aux"
        assert found["record"].name == "none"
        assert found["default"].default_factory is list
        assert list(found["ordered"]) == ["z", "a"]


def test_nodes_are_dicts_without_a_template(path):
    ckptfmt_jax.save(path, make_nodes(3.5))
    with pytest.warns(ckptfmt.UnknownTagWarning) as caught:
        found = ckptfmt_jax.load(path)
    assert {str(warning.message).split()[0][1:] for warning in caught} == {
        "python.namedtuple",
        "python.dataclass",
        "jax.pytree",
    }
    assert list(found["point"]) == ["x", "y"]
    assert list(found["layer"]) == ["weight"]
    assert list(found["pair"]) == [0, 1]
    assert isinstance(found["pair"][1]["deep"]["x"][0], jax.Array)


def test_nodes_with_twice_one_key_are_refused(path):
    with pytest.raises(ckptfmt.InputError, match="two children with one key") as caught:
        ckptfmt_jax.save(path, {"t": Twins()})
    assert (caught.value.code, caught.value.tensor) == ("unsupported-leaf", "t")


# ---- templates and options


def test_differences_are_reported_together(path):
    ckptfmt_jax.save(path, {"a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones(3), "more": jnp.ones(1)})
    like = {"a": jnp.ones(4), "b": jnp.ones(3, jnp.int32), "c": "text", "less": jnp.ones(1)}
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt_jax.load(path, like)
    report = caught.value.report
    assert report.missing == ("less",)
    assert report.unexpected == ("more",)
    assert [row[0] for row in (*report.shape, *report.dtype, *report.kind)] == ["a", "b", "c"]


def test_part_of_a_checkpoint(path):
    ckptfmt_jax.save(path, {"model": {"w": jnp.ones(3)}, "optimizer": [jnp.ones(2)]})
    found = ckptfmt_jax.load(path, {"model": {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}}, select="model/**")
    assert found["model"]["w"].tolist() == [1, 1, 1]
    assert list(ckptfmt_jax.load(path, select="model/**")) == ["model"]


def test_templates_of_arrays_on_the_host_stay_there(path):
    ckptfmt_jax.save(path, {"a": jnp.ones(3), "b": jnp.ones(3)})
    found = ckptfmt_jax.load(path, {"a": np.empty(3, np.float32), "b": jnp.ones(3)})
    assert type(found["a"]) is np.ndarray
    assert isinstance(found["b"], jax.Array)


def test_a_sharding_needs_a_template(path):
    ckptfmt_jax.save(path, {})
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(ckptfmt.InputError, match="like=") as caught:
        ckptfmt_jax.load(path, sharding=sharding)
    assert caught.value.code == "bad-option"


def test_progress_is_told(path):
    ckptfmt_jax.save(path, {"a": jnp.ones((256, 256))})
    seen = []
    ckptfmt_jax.load(path, {"a": jax.ShapeDtypeStruct((256, 256), jnp.float32)}, progress=lambda *at: seen.append(at))
    assert seen[-1] == (1 << 18, 1 << 18)


# ---- the suite for adapters


class TestSuite(AdapterSuite):
    """The suite that any adapter can run."""

    adapter = ADAPTER
    can_fill = False  # arrays of JAX never change

    def tensor(self, array):
        return jax.device_put(array.copy())

    def array(self, tensor):
        assert isinstance(tensor, jax.Array)
        return np.asarray(tensor)

    @pytest.fixture(autouse=True)
    def _with_64_bits(self):
        with jax.enable_x64(True):
            yield
