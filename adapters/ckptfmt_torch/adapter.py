"""Torch's adapter: what the tree holds for its values, and how tensors are made and filled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ckptfmt.calls import takes
from ckptfmt.errors import fault
from ckptfmt.format.dtypes import DTYPES, Array
from ckptfmt.format.grid import Shape
from ckptfmt.format.node import Restore
from ckptfmt.frameworks.adapter import Blank, Plain, Slot, SlotPart, Tagged, Template, is_stateful, nothing
from ckptfmt.frameworks.own_dicts import without_own_dicts
from ckptfmt.frameworks.receiving import Receiver
from ckptfmt.frameworks.sources import Source

from . import dtensor, states, subclasses
from .dtypes import TORCH, array_of, row_of, tensor_of
from .modules import ModuleReceiver
from .tensors import MetaTensor, blank_like, check, is_dtensor, logical_shape, places, source_of, to_device

# of tensors whose elements are what their memory holds: none is a conjugate, none is packed
_AS_THEY_ARE = frozenset(dtype for name, dtype in TORCH.items() if DTYPES[name].per == 1 and not dtype.is_complex)
_DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes that `torch.save` made of a value which the tree has no node for. Only `torch.load` makes it again; that
    may run code, so nothing here does it."""

    data: bytes


def _parameter(requires_grad: Any, tensor: torch.Tensor) -> torch.nn.Parameter:
    can = tensor.is_floating_point() or tensor.is_complex()
    return torch.nn.Parameter(tensor, bool(requires_grad) and can)


def _device(_: Any, name: str) -> torch.device | str:
    try:
        return torch.device(name)
    except RuntimeError:  # a kind of device that this torch does not know [TAG-004]
        return name


def _generator(device: str, state: bytes) -> Any:
    """A generator of random numbers; the child where there is no such device, or for a state of another kind of one."""
    try:
        made = torch.Generator(device)
        made.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    except (RuntimeError, ValueError):
        return NotImplemented
    return made


RESTORES: Mapping[str, Restore] = MappingProxyType(
    {
        "torch.Parameter": _parameter,
        "torch.state_dict": states.state_dict,
        "numpy.ndarray": lambda _, tensor: array_of(tensor.cpu()),
        "torch.Size": lambda _, sides: torch.Size(sides),
        "torch.dtype": lambda _, name: _DTYPES.get(name, name),  # [TAG-004]
        "torch.device": _device,
        "torch.Generator": _generator,
        "torch.saved": lambda _, data: Saved(data),
        **subclasses.RESTORES,
    }
)


class TorchAdapter:
    """Tensors, Parameters, modules, optimizers and other values of torch. `device` is where loaded tensors are put."""

    framework = "torch"
    tensors = frozenset((torch.Tensor,))
    restores = RESTORES

    @takes()
    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.on_host = self.device.type == "cpu"
        if self.device.type == "meta":
            raise fault("bad-option", "tensors on the meta device have no elements to load", found="meta")

    def lower(self, value: Any) -> Source | Tagged | Plain | None:
        """Describe what is stored of a value of torch. Raises `unsupported-leaf` for tensors whose elements cannot be
        told: sparse, quantized, nested, DTensors of partial sums, subclasses that do not say what they are made of; and
        `unsupported-dtype`. [TREE-013]"""
        if isinstance(value, torch.Tensor):
            return _lowered(value)
        if isinstance(value, torch.Size):
            return Tagged("torch.Size", None, tuple(value), torch.Size)
        if isinstance(value, torch.dtype):
            return Tagged("torch.dtype", None, str(value).removeprefix("torch."), lambda name: _DTYPES.get(name, name))
        if isinstance(value, torch.device):
            return Tagged("torch.device", None, str(value), lambda name: _device(None, name))
        if isinstance(value, torch.Generator):
            device, state = str(value.device), value.get_state().numpy().tobytes()
            return Tagged("torch.Generator", device, state, partial(_generator, device))
        if isinstance(value, Saved):
            return Tagged("torch.saved", None, value.data, Saved)
        if is_stateful(value):
            states.check_whole(value)
            return Plain(states.with_arrays(without_own_dicts(value.state_dict())))
        if type(value) is OrderedDict and "_metadata" in vars(value):
            return states.tagged(value)
        return None

    def wrap(self, array: Array) -> torch.Tensor:
        """Return an array as a tensor on the device; on the host it keeps the memory."""
        tensor = tensor_of(array)
        return tensor if self.on_host else to_device(tensor, self.device)

    def supports(self, dtype: str) -> bool:
        """Tell whether torch has a dtype, by its name in SPEC.md."""
        return dtype in TORCH

    def seen(self, tensors: list[Any]) -> tuple[tuple[int, ...], Any] | None:
        """Tell which memory `tensors` are that are contiguous, and neither Parameters nor of other subclasses."""
        if set(map(type, tensors)) != {torch.Tensor}:
            return None
        dtypes, devices = list(map(attrgetter("dtype"), tensors)), set(map(attrgetter("device"), tensors))
        plain = {torch.device("cpu")} == devices and {torch.strided} == set(map(attrgetter("layout"), tensors))
        if not plain or not _AS_THEY_ARE.issuperset(dtypes) or any(map(attrgetter("is_nested"), tensors)):
            return None
        if any(map(torch.Tensor.is_neg, tensors)) or not all(map(torch.Tensor.is_contiguous, tensors)):
            return None
        addresses = tuple(map(torch.Tensor.data_ptr, tensors))
        return (addresses, (dtypes, list(map(attrgetter("shape"), tensors)))) if all(addresses) else None

    def copy(self, into: list[Any], tensors: list[Any]) -> None:
        """Copy tensors into others, all at once."""
        with torch.no_grad():
            torch._foreach_copy_(into, tensors)

    def settle(self) -> None:
        """Wait for this thread's current streams of CUDA, if they are not the default ones, which are those of all
        threads."""
        for device in range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ():  # type: ignore[no-untyped-call]
            stream = torch.cuda.current_stream(device)
            if stream != torch.cuda.default_stream(device):
                stream.synchronize()

    def slot(self, leaf: Any) -> Slot | None:
        """Return the tensor's own memory to be filled, or its local part of a DTensor's; raises `mismatch` for one on
        the meta device."""
        if isinstance(leaf, MetaTensor) or (isinstance(leaf, torch.Tensor) and leaf.is_meta):
            raise fault("mismatch", "a tensor on the meta device cannot be filled; load into its module instead")
        if not isinstance(leaf, torch.Tensor) or subclasses.is_made_of_others(leaf):
            return None
        check(leaf)
        tensor = leaf.detach()
        if is_dtensor(tensor):
            local = [part for start, here in dtensor.local_parts(tensor) for part in places(here, start)]
            return Slot(tuple(tensor.shape), row_of(tensor.dtype).numpy, tuple(local), changed=_changed(tensor, local))
        shape = logical_shape(tensor)
        parts = tuple(places(tensor, (0,) * tensor.ndim))
        return Slot(shape, row_of(tensor.dtype).numpy, parts, _has_elements_apart(tensor), _changed(tensor, parts))

    def receiver(self, value: Any) -> Receiver | None:
        """Return what loads into a module, an optimizer or another object with a state of its own."""
        if isinstance(value, torch.nn.Module):
            return ModuleReceiver(value, self.device)
        if isinstance(value, torch.optim.Optimizer):
            return states.OptimizerReceiver(value)
        return states.StateReceiver(value) if isinstance(value, torch.optim.lr_scheduler.LRScheduler) else None

    def template(self, leaf: Any) -> Template | None:
        """Describe a tensor of the leaf's shape, dtype and device, or a DTensor of its mesh and placements, of whose
        elements only the local ones are read. One on the meta device asks for a tensor on the host."""
        if isinstance(leaf, MetaTensor):
            leaf = leaf.tensor
        if not isinstance(leaf, torch.Tensor) or subclasses.is_made_of_others(leaf):
            return None
        check(leaf)
        shape = tuple(leaf.shape) if is_dtensor(leaf) else logical_shape(leaf)
        return Template(shape, row_of(leaf.dtype).numpy, _TensorBuilder(leaf.detach()))


def _has_elements_apart(tensor: torch.Tensor) -> bool:
    """Whether no two elements are one place in memory, as those of an expanded tensor are."""
    if tensor.is_contiguous() or not tensor.numel():
        return True
    return not any(n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True))


def _changed(tensor: torch.Tensor, parts: Sequence[SlotPart]) -> Callable[[], None]:
    """What tells autograd of memory that was written to behind its back, as it does itself of what torch writes."""
    if tensor.is_inference() or not any(part.array is not None for part in parts):
        return nothing
    return partial(torch.autograd.graph.increment_version, tensor)


def _lowered(value: torch.Tensor) -> Source | Tagged | Plain:
    if subclasses.is_made_of_others(value):
        return subclasses.lowered(value)
    check(value)
    bare = value.detach()
    if isinstance(value, torch.nn.Parameter):
        # what is filled in place stays the very Parameter
        return Tagged(
            "torch.Parameter",
            value.requires_grad,
            bare,
            lambda child: value if child is bare else torch.nn.Parameter(child, value.requires_grad),
        )
    if bare.is_meta:
        return Plain(MetaTensor(bare))
    return dtensor.sharded(bare) if is_dtensor(bare) else source_of(bare)


class _TensorBuilder:
    """Begins tensors like a leaf. Equal for leaves that ask alike, so that tied ones stay tied."""

    def __init__(self, leaf: Any) -> None:
        self._leaf = leaf
        self._device = torch.device("cpu") if leaf.is_meta else leaf.device
        sharding = (leaf.device_mesh, leaf.placements) if is_dtensor(leaf) else None
        self._asked = (self._device, leaf.dtype, tuple(leaf.shape), leaf.stride(), sharding)

    def __call__(self, shape: Shape, dtype: np.dtype[Any]) -> Blank:
        target = blank_like(self._leaf, self._device)
        found = ADAPTER.slot(target)
        assert found is not None  # it is a tensor
        return Blank(found.parts, lambda: target)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TensorBuilder) and self._asked == other._asked

    def __hash__(self) -> int:
        return hash(self._asked)


ADAPTER = TorchAdapter()
