"""What a step depends on beside its inputs, and finds again when it is recomputed: random numbers, autocast,
buffers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from .captured import modules_of
from .storages import is_plain


class RandomState(NamedTuple):
    """The states of torch's default generators: of the host, and of devices of one kind."""

    host: torch.Tensor
    kind: str
    devices: tuple[int, ...]
    states: tuple[torch.Tensor, ...]


class Generators:
    """The default generators of the host, and of all devices that tensors are on."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        others = {t.device for t in tensors if t.device.type not in ("cpu", "meta")}
        kinds = sorted({device.type for device in others})
        self.kind = "cuda" if "cuda" in kinds else kinds[0] if kinds else "cpu"
        self._devices = tuple(sorted({device.index or 0 for device in others if device.type == self.kind}))

    def state(self) -> RandomState:
        host, kind, devices = torch.get_rng_state(), self.kind, self._devices
        return RandomState(host, kind, devices, tuple(getattr(torch, kind).get_rng_state(d) for d in devices))

    @contextlib.contextmanager
    def set_to(self, state: RandomState) -> Iterator[None]:
        """Within the block; afterwards they are as before it."""
        with torch.random.fork_rng(self._devices, device_type=self.kind if self._devices else "cuda"):
            torch.set_rng_state(state.host)
            for device, there in zip(state.devices, state.states, strict=True):
                getattr(torch, state.kind).set_rng_state(there, device)
            yield


class Autocast:
    """Whether operations are cast, and to what, as it was when this was made."""

    def __init__(self, kind: str) -> None:
        kinds = [kind for kind in dict.fromkeys(("cpu", kind)) if torch.amp.is_autocast_available(kind)]
        self._found = [(k, torch.get_autocast_dtype(k), torch.is_autocast_enabled(k)) for k in kinds]
        self._caches = torch.is_autocast_cache_enabled()

    @contextlib.contextmanager
    def again(self, *, with_grad: bool) -> Iterator[None]:
        """The same within the block. Casts that are made without a graph go into no cache: those who use it want
        gradients."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(with_grad))
            for kind, dtype, enabled in self._found:
                caches = self._caches and with_grad
                stack.enter_context(torch.amp.autocast(kind, dtype, enabled, caches))
            yield


class ModuleBuffers:
    """Buffers that steps change: running statistics, iterates of spectral norms. A step that is recomputed finds those
    that it found first, and leaves no trace of having been called again."""

    def __init__(self, steps: Sequence[Any]) -> None:
        self._of = [_buffers(step) for step in steps]
        self._before: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    @contextlib.contextmanager
    def noted(self, number: int) -> Iterator[None]:
        """See what the first call of a step changes."""
        copies = [(buffer, buffer.clone()) for buffer in self._of[number]]
        yield
        changed = [(buffer, copy) for buffer, copy in copies if not _same(buffer, copy)]
        if changed:
            self._before[number] = changed

    @contextlib.contextmanager
    def as_before(self, number: int) -> Iterator[None]:
        changed = self._before.get(number, [])
        now = [(buffer, buffer.clone()) for buffer, _ in changed]
        _put(changed)
        try:
            yield
        finally:
            _put(now)


def _buffers(step: Any) -> list[torch.Tensor]:
    found = [module for module in modules_of(step) if any(True for _ in module.buffers())]
    return list({id(buffer): buffer for module in found for buffer in module.buffers() if is_plain(buffer)}.values())


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one, other) or (
        one.is_floating_point()
        and torch.equal(one.isnan(), other.isnan())
        and torch.equal(one.nan_to_num(), other.nan_to_num())
    )


def _put(values: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Without autograd's notice: no graph saw the other values."""
    with torch.no_grad(), _unsafe_preserve_version_counter(tuple(buffer for buffer, _ in values)):
        for buffer, value in values:
            buffer.copy_(value)
