"""Modules and functions as a computation that a driver recomputes: states are what one gives and the next one takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ckptfmt.errors import fault
from ckptfmt.format.digests import DIGEST, digest_named

from ..dtypes import array_of
from . import captured
from .storages import memory_of, packed, part, span, unpacked, version
from .surroundings import Autocast, Generators, ModuleBuffers, RandomState
from .trimming import TRIM

PLAIN = (type(None), bool, int, float, str)
Adjoints = list[torch.Tensor | None]


class ChainState(NamedTuple):
    """What a step is called with, or the one tensor that it `is_one`; and the random numbers that it will draw."""

    values: tuple[Any, ...]
    is_one: bool
    random: RandomState

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [value for value in self.values if isinstance(value, torch.Tensor)]


class HeldState(NamedTuple):
    """A snapshot: the very tensors, and how often they had been changed. A copy of each would take as much memory as
    the budget has, once more."""

    state: ChainState
    versions: list[int]


class ChainSteps:
    """Steps of torch. `parameters`: of each, all that requires grad beside its inputs; `gradients`: what has come
    together for each parameter, by its id."""

    def __init__(
        self,
        steps: Sequence[Callable[..., Any]],
        inputs: tuple[Any, ...],
        parameters: list[list[torch.Tensor]],
    ) -> None:
        self._steps, self.parameters = steps, parameters
        state = ChainState(inputs, False, RandomState(torch.empty(0), "", (), ()))
        everything = [*state.tensors, *(each for some in parameters for each in some)]
        self._generators = Generators(everything)
        self._autocast = Autocast(self._generators.kind)
        self._buffers = ModuleBuffers(steps)
        self._first_needs = [tensor.requires_grad for tensor in state.tensors]
        self._is_going_back = False
        self._needed: set[int] = set()
        self._needs_state: list[bool] = []  # of each step, whether anything before it asks for a gradient
        self._counts: dict[int, int] = {}
        self.gradients: dict[int, torch.Tensor] = {}

    def initial(self, values: tuple[Any, ...]) -> ChainState:
        return ChainState(_detached(values), False, self._generators.state())

    def go_back(self, needed: set[int]) -> None:
        """From now on states are computed again. `needed`: ids of parameters whose gradients are."""
        self._is_going_back, self._needed = True, needed
        self._needs_state = [any(self._first_needs)]
        for parameters in self.parameters:
            needs = any(id(parameter) in needed for parameter in parameters)
            self._needs_state.append(needs or self._needs_state[-1])

    # ---- what the driver asks for

    def advance(self, state: ChainState, first: int, last: int) -> ChainState:
        for number in range(first, last):
            state = self._stepped(state, number)
            TRIM.freed(state.tensors)
        return state

    def _stepped(self, state: ChainState, number: int) -> ChainState:
        before = [version(tensor) for tensor in state.tensors]
        if self._is_going_back:
            with self._as_before(state, number, with_grad=False):
                outputs, after = self._steps[number](*state.values), self._generators.state()
        else:
            with self._autocast.again(with_grad=False), self._buffers.noted(number):
                outputs = self._steps[number](*state.values)
            after = self._generators.state()
        if [version(tensor) for tensor in state.tensors] != before:
            message = f"step {number} changes what it is given in place, which is needed to go back"
            raise fault("state-changed", message, advice="Copy it there, or say inplace=False")
        values, is_one = _values(outputs, number)
        count = self._counts.setdefault(number, len(values))
        if count != len(values):
            message = f"step {number} gives more or fewer values than before"
            raise fault("state-changed", message, found=len(values), expected=count)
        return ChainState(_detached(values), is_one, after)

    @contextlib.contextmanager
    def _as_before(self, state: ChainState, number: int, *, with_grad: bool) -> Iterator[None]:
        with (
            self._generators.set_to(state.random),
            self._autocast.again(with_grad=with_grad),
            self._buffers.as_before(number),
        ):
            yield

    def reverse(self, state: ChainState, number: int, adjoint: Adjoints) -> Adjoints:
        if not self._needs_state[number + 1]:
            return [None] * len(state.tensors)
        inputs, leaves = self._leaves(state, number)
        with self._as_before(state, number, with_grad=True):
            outputs, _ = _values(self._steps[number](*inputs), number)
        there = [value for value in outputs if isinstance(value, torch.Tensor)]
        if len(there) != len(adjoint):
            message = f"step {number} gives more or fewer tensors than before"
            raise fault("state-changed", message, found=len(there), expected=len(adjoint))
        pairs = [(o, a) for o, a in zip(there, adjoint, strict=True) if o.requires_grad and a is not None]
        parameters = self.parameters[number]
        self._check_known([output for output, _ in pairs], leaves, parameters, number)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        wanted += [parameter for parameter in parameters if id(parameter) in self._needed]
        del there, outputs, inputs, state
        found = _gradients(pairs, wanted)
        for parameter in parameters:
            gradient = found.get(id(parameter))
            if gradient is not None:
                so_far = self.gradients.get(id(parameter))
                self.gradients[id(parameter)] = gradient if so_far is None else so_far + gradient
        TRIM.freed(leaves)
        return [found.get(id(leaf)) for leaf in leaves]

    def _leaves(self, state: ChainState, number: int) -> tuple[list[Any], list[torch.Tensor]]:
        """What the step is called with to go back over it, and the tensors among that."""
        inputs: list[Any] = []
        for value in state.values:
            if isinstance(value, torch.Tensor):
                value = value.detach()
                value.requires_grad_(self._needs_state[number] and (value.is_floating_point() or value.is_complex()))
            inputs.append(value)
        leaves = [value for value in inputs if isinstance(value, torch.Tensor)]
        if number == 0:
            for leaf, needs in zip(leaves, self._first_needs, strict=True):
                leaf.requires_grad_(needs)
        return inputs, leaves

    def _check_known(
        self, outputs: list[torch.Tensor], leaves: list[torch.Tensor], parameters: list[torch.Tensor], number: int
    ) -> None:
        unknown = captured.unknown_leaf(outputs, [*leaves, *parameters])
        if unknown is not None:
            message = f"step {number} uses a tensor that requires grad, and that was not found in it"
            found = f"{unknown.dtype} {list(unknown.shape)}"
            raise fault("bad-option", message, found=found, advice="Name it, or the module that has it, in captured=")

    def hold(self, state: ChainState) -> HeldState:
        return HeldState(state, [version(tensor) for tensor in state.tensors])

    def give(self, held: HeldState, *, last: bool) -> ChainState:
        if held.versions != [version(tensor) for tensor in held.state.tensors]:
            message = "a tensor that is needed to go back was changed in place: what the chain was called with, or gave"
            raise fault("state-changed", message, advice="Copy it before it is changed")
        return held.state

    def size(self, held: HeldState) -> int:
        return memory_of(held.state.tensors)

    def fingerprint(self, state: ChainState) -> bytes:
        hasher = digest_named(DIGEST).stream()
        for tensor in [*state.tensors, state.random.host, *state.random.states]:
            hasher.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            raw = tensor.detach().resolve_conj().resolve_neg().contiguous().cpu()
            if raw.numel():
                hasher.update(np.ascontiguousarray(array_of(part(raw, *span(raw)))).data)
        return hasher.digest()

    def pack(self, held: HeldState) -> tuple[Any, Any]:
        state = held.state
        parts, about = packed(state.tensors)
        plain = [None if isinstance(value, torch.Tensor) else [value] for value in state.values]
        random = state.random
        tree = {"storages": parts, "random": [random.host, *random.states]}
        beside = [about, plain, state.is_one, random.kind, list(random.devices)]
        return tree, beside

    def unpack(self, load: Callable[[Any], Any], beside: Any) -> HeldState:
        tree = load(None)
        about, plain, is_one, kind, devices = beside
        tensors = iter(unpacked([torch.from_numpy(array) for array in tree["storages"]], about))
        values = tuple(next(tensors) if value is None else value[0] for value in plain)
        host, *states = map(torch.from_numpy, tree["random"])
        state = ChainState(values, is_one, RandomState(host, kind, tuple(devices), tuple(states)))
        return HeldState(state, [version(tensor) for tensor in state.tensors])


def _values(outputs: Any, number: int) -> tuple[tuple[Any, ...], bool]:
    """What a step gives, and whether that is one tensor rather than a tuple."""
    if isinstance(outputs, torch.Tensor):
        return (outputs,), True
    if isinstance(outputs, tuple | list):
        other = next((value for value in outputs if not isinstance(value, (torch.Tensor, *PLAIN))), None)
        if other is None:
            return tuple(outputs), False
        outputs = other
    message = f"step {number} gives what cannot be passed on"
    expected = "a tensor, or a tuple of tensors and plain values"
    advice = "Give what a dict or an object has one by one"
    raise fault("unsupported-leaf", message, found=type(outputs).__name__, expected=expected, advice=advice)


def _detached(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.detach() if isinstance(value, torch.Tensor) and value.requires_grad else value for value in values
    )


def _gradients(
    pairs: list[tuple[torch.Tensor, torch.Tensor]], wanted: list[torch.Tensor]
) -> dict[int, torch.Tensor | None]:
    """The gradients of tensors, by their ids, from outputs and their gradients."""
    if not pairs or not wanted:
        return {}
    outputs, adjoints = zip(*pairs, strict=True)
    pairs.clear()
    with _without_hooks(wanted):
        found = torch.autograd.grad(outputs, wanted, adjoints, allow_unused=True)
    return {id(tensor): gradient for tensor, gradient in zip(wanted, found, strict=True)}


@contextlib.contextmanager
def _without_hooks(tensors: list[torch.Tensor]) -> Iterator[None]:
    """Hooks of tensors see the sum over all steps, once, when the outer pass comes to them; not each step's part."""
    hooked = [tensor for tensor in tensors if tensor._backward_hooks]
    if any(tensor.grad_fn is not None for tensor in hooked):
        message = "a captured tensor that is no leaf has a hook, which would see the gradients of single steps"
        raise fault("bad-option", message, advice="Give it to the steps as an input")
    kept = [tensor._backward_hooks for tensor in hooked]
    for tensor in hooked:
        tensor._backward_hooks = None
    try:
        yield
    finally:
        for tensor, hooks in zip(hooked, kept, strict=True):
            tensor._backward_hooks = hooks
