"""What a format's own library wrote, through a checkpoint of this format, back into that library: equal, or the report
names the place where it differs."""

from __future__ import annotations

import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import peer

import ckptfmt
from ckptfmt.testing import strategies

safetensors_torch = peer("safetensors.torch")
torch = peer("torch")
dcp = peer("torch.distributed.checkpoint")

TORCH_DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32),
    *(torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.float4_e2m1fn_x2),
]
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def tensors(draw: Any, dtypes: Any = TORCH_DTYPES) -> torch.Tensor:
    dtype, shape = draw(st.sampled_from(dtypes)), draw(shapes)
    if dtype == torch.float4_e2m1fn_x2 and not shape:
        shape = (1,)
    raw = draw(st.binary(min_size=8, max_size=8))
    count = int(np.prod(shape)) * dtype.itemsize
    data = torch.frombuffer(bytearray((raw * (count // 8 + 1))[:count] or b"\0"), dtype=torch.uint8)[:count]
    if dtype == torch.bool:
        data = data & 1
    found = data.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    can_turn = found.ndim > 1 and dtype != torch.float4_e2m1fn_x2
    return found.transpose(0, 1) if can_turn and draw(st.booleans()) else found


@st.composite
def attributed(draw: Any) -> torch.Tensor:
    found: torch.Tensor = draw(tensors([torch.float32, torch.int64]))
    if draw(st.booleans()):
        can = found.is_floating_point()
        found = torch.nn.Parameter(found, requires_grad=can and draw(st.booleans()))
    if draw(st.booleans()):
        vars(found).update(draw(st.dictionaries(st.text("ab", min_size=1), plain, min_size=1, max_size=2)))
    return found


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
devices = st.sampled_from(["cpu", "cuda:1", "meta"]).map(torch.device)
of_torch = devices | st.sampled_from(TORCH_DTYPES) | st.lists(st.integers(0, 9), max_size=3).map(torch.Size)
odd = st.binary().map(bytearray) | st.frozensets(st.integers(0, 9), max_size=3) | st.just(torch.strided)
leaves = tensors() | attributed() | plain | of_torch | odd
keys = st.text(max_size=3) | st.integers(-3, 99)


def containers(inner: Any, keys: Any = keys) -> Any:
    dicts = st.dictionaries(keys, inner, max_size=3)
    return dicts | dicts.map(OrderedDict) | st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)


trees = st.recursive(leaves, containers, max_leaves=8)


def differences(found: Any, wanted: Any, at: str = "") -> list[str]:
    """Labels of the places where two trees differ in kind, dtype, shape, bits, attributes or order."""
    if type(found) is not type(wanted):
        return [at]
    if isinstance(wanted, torch.Tensor):
        same = found.dtype == wanted.dtype and found.shape == wanted.shape and _bits(found) == _bits(wanted)
        same = same and (type(wanted) is torch.Tensor or found.requires_grad == wanted.requires_grad)
        return [] if same and not differences(vars(found), vars(wanted)) else [at]
    if isinstance(wanted, dict):
        odd = [] if list(found) == list(wanted) else [at]
        both = [key for key in wanted if key in found]
        return odd + [one for key in both for one in differences(found[key], wanted[key], _below(at, key))]
    if isinstance(wanted, list | tuple):
        odd = [] if len(found) == len(wanted) else [at]
        pairs = enumerate(zip(found, wanted, strict=False))
        return odd + [one for i, (x, y) in pairs for one in differences(x, y, _below(at, i))]
    if isinstance(wanted, np.ndarray | np.generic):
        same = found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()
        return [] if same else [at]
    if isinstance(wanted, float):
        return [] if struct.pack("d", found) == struct.pack("d", wanted) else [at]
    if isinstance(wanted, complex):
        return differences([found.real, found.imag], [wanted.real, wanted.imag]) and [at]
    return [] if found == wanted else [at]


def _bits(tensor: torch.Tensor) -> bytes:
    if not tensor.numel():
        return b""
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def _below(at: str, key: Any) -> str:
    from ckptfmt.format.names import path_label

    return f"{at}/{path_label((key,))}" if at else path_label((key,))


def covers(losses: Any, places: list[str]) -> bool:
    """Whether each place lies at or below one of which something is said."""
    told = [loss.path for loss in losses]
    return all(any(not path or place == path or place.startswith(f"{path}/") for path in told) for place in places)


def through(folder: str, source: str, back: str) -> Any:
    """The losses of converting a source into a checkpoint of this format, and that into another."""
    first = ckptfmt.convert(f"{folder}/{source}", f"{folder}/x.ckpt", allow_loss=True, durable=False)
    second = ckptfmt.convert(f"{folder}/x.ckpt", f"{folder}/{back}", allow_loss=True, durable=False)
    return (*first.losses, *second.losses)


@given(tree=trees, zipped=st.booleans())
def test_trees_of_torch(scratch: Callable[[], Any], tree: Any, zipped: bool) -> None:
    with scratch() as folder:
        torch.save(tree, f"{folder}/a.pt", _use_new_zipfile_serialization=zipped)
        try:
            wanted = torch.load(f"{folder}/a.pt", weights_only=False)
        except AttributeError:  # torch 2.13 does not read what it writes of its newer dtypes in the form of before 1.6
            assert not zipped
            return
        losses = through(folder, "a.pt", "b.pt")
        found = torch.load(f"{folder}/b.pt", weights_only=False)
    assert covers(losses, differences(found, wanted)), (losses, differences(found, wanted))


@given(tree=st.dictionaries(st.text(max_size=5), tensors(), max_size=4), metadata=st.dictionaries(st.text(), st.text()))
def test_trees_of_safetensors(scratch: Callable[[], Any], tree: Any, metadata: Any) -> None:
    tree = {name: tensor.contiguous() for name, tensor in tree.items() if name != "__metadata__"}
    tree = {name: tensor for name, tensor in tree.items() if not tensor.is_complex() or tensor.dtype == torch.complex64}
    with scratch() as folder:
        safetensors_torch.save_file(tree, f"{folder}/a.safetensors", metadata or None)
        losses = through(folder, "a.safetensors", "b.safetensors")
        found = safetensors_torch.load_file(f"{folder}/b.safetensors")
        with safetensors.safe_open(f"{folder}/b.safetensors", "pt") as file:
            assert (file.metadata() or {}) == metadata
    assert not losses
    assert set(found) == set(tree)
    assert not differences({name: found[name] for name in tree}, tree)


@given(tree=st.dictionaries(st.text(max_size=3), trees, min_size=1, max_size=3))
def test_trees_of_dcp(scratch: Callable[[], Any], tree: Any) -> None:
    """torch itself turns int keys into text, and OrderedDicts into dicts, leaves out empty ones, and reads into a
    state dict that is there."""
    with scratch() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dcp.save(tree, checkpoint_id=f"{folder}/a", no_dist=True)
        except (ValueError, dcp.api.CheckpointException):  # names that torch joins alike
            return
        report = ckptfmt.convert(f"{folder}/a", f"{folder}/x.ckpt", allow_loss=True, durable=False)
        ckptfmt.convert(f"{folder}/x.ckpt", f"{folder}/b.pt", allow_loss=True, durable=False)
        found = torch.load(f"{folder}/b.pt", weights_only=False)
    wanted = as_dcp_has_it(tree)
    wanted = {} if wanted is Gone else wanted
    assert covers(report.losses, differences(in_order(found, wanted), wanted)), (report.losses, found, wanted)


class Gone:
    """Stands for what DCP stores nothing of: empty dicts, and lists of them."""


def as_dcp_has_it(tree: Any) -> Any:
    """The tree with what DCP is known to change, and nobody can see: plain dicts and tensors, no empty dicts, also at
    the ends of lists."""
    if isinstance(tree, dict):
        items = {key: as_dcp_has_it(item) for key, item in tree.items()}
        return {key: item for key, item in items.items() if item is not Gone} or Gone
    if isinstance(tree, list) and not is_terminal(tree):
        found = [as_dcp_has_it(item) for item in tree]
        while found and found[-1] is Gone:
            del found[-1]
        return found or Gone
    return tree.detach().as_subclass(torch.Tensor) if isinstance(tree, torch.Tensor) else tree


def is_terminal(tree: Any) -> bool:
    """Whether DCP stores a value as it is."""
    if isinstance(tree, dict | torch.Tensor):
        return False
    return not isinstance(tree, list) or not any(
        isinstance(item, torch.Tensor) or (isinstance(item, dict | list) and not is_terminal(item)) for item in tree
    )


def in_order(found: Any, wanted: Any) -> Any:
    """The same with the order of another in its dicts."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        order = [*(key for key in wanted if key in found), *(key for key in found if key not in wanted)]
        return {key: in_order(found[key], wanted.get(key)) for key in order}
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [in_order(*pair) for pair in zip(found, wanted, strict=True)]
    return found


TARGETS = {
    "ckpt": "ckptfmt",
    "safetensors": "safetensors",
    "pt": "torch",
    "npz": "npz",
    "h5": "hdf5",
    "msgpack": "flax",
}


@pytest.mark.parametrize("suffix", TARGETS)
def test_any_tree_goes_into_any_format_or_is_refused(scratch: Callable[[], Any], suffix: str) -> None:
    """Whatever `losses` say, what is written can be read, and nothing else differs."""

    @settings(max_examples=max(10, settings().max_examples // 5))
    @given(tree=strategies.trees(max_leaves=6), verify=st.booleans())
    def check(tree: Any, verify: bool) -> None:
        with scratch() as folder:
            source, target = f"{folder}/x.ckpt", f"{folder}/y.{suffix}"
            ckptfmt.save(source, tree, durable=False)
            try:
                report = ckptfmt.convert(source, target, allow_loss=True, durable=False, verify=verify)
            except ckptfmt.InputError as error:
                assert error.code in ("name-collision", "unsupported-key")
                return
            found = ckptfmt.diff(source, target, target_format=TARGETS[suffix])
            is_flat = suffix in ("safetensors", "npz")
            assert report.losses or is_flat or not (found.changed or found.added or found.removed)

    check()


FLAX_DTYPES = [*"?bBhHiIlLefdFD", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]


@st.composite
def arrays(draw: Any) -> np.ndarray[Any, Any]:
    dtype, shape = np.dtype(draw(st.sampled_from(FLAX_DTYPES))), draw(shapes)
    raw = draw(st.lists(st.integers(0, 1), min_size=1, max_size=4))
    return np.resize(np.array(raw), shape).astype(dtype) if np.prod(shape) else np.empty(shape, dtype)


ints = st.integers(-(1 << 63), (1 << 64) - 1)
flax_leaves = arrays() | arrays().map(lambda array: array.reshape(-1)[0] if array.size else np.float32(2)) | ints
flax_leaves |= st.none() | st.booleans() | st.floats() | st.complex_numbers() | st.text() | st.binary()
flax_trees = st.recursive(
    flax_leaves,
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(tree=st.dictionaries(st.text(max_size=3), flax_trees, min_size=1, max_size=3))
def test_trees_of_flax(scratch: Callable[[], Any], tree: Any) -> None:
    flax = pytest.importorskip("flax.serialization")
    raw = flax.msgpack_serialize(tree)
    wanted = flax.msgpack_restore(raw)
    with scratch() as folder:
        with open(f"{folder}/a.msgpack", "wb") as file:
            file.write(raw)
        losses = through(folder, "a.msgpack", "b.msgpack")
        with open(f"{folder}/b.msgpack", "rb") as file:
            found = flax.msgpack_restore(file.read())
    assert covers(losses, differences(found, wanted)), (losses, found, wanted)
