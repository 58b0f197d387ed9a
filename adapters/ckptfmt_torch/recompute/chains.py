"""`chain`: a part of a model whose states are recomputed, as one function of autograd."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import forward_ad

from ckptfmt.calls import count_asked, takes
from ckptfmt.errors import fault
from ckptfmt.packages import package
from ckptfmt.recompute.actions import ActionTable
from ckptfmt.recompute.budget import SnapshotBudget, snapshots_in
from ckptfmt.recompute.costs import Costs
from ckptfmt.recompute.driver import Driver
from ckptfmt.recompute.plans import best_schedule
from ckptfmt.recompute.report import RecomputeReport, report_of
from ckptfmt.recompute.schedules import Slots, check_slots, kind_named, slots_for, table_of, usual
from ckptfmt.recompute.snapshots import DiskTier, Snapshots, Traffic, scratch

from .captured import divided_in, parameters_of
from .ending import closed_with
from .steps import Adjoints, ChainSteps
from .storages import memory_of, version

TorchStep = Callable[..., Any]


@takes(name="ckptfmt_torch.recompute.chain")
def chain(
    steps: Iterable[TorchStep],
    *x: Any,
    memory: SnapshotBudget = None,
    disk: SnapshotBudget = None,
    folder: str | os.PathLike[str] | None = None,
    schedule: str | None = None,
    period: int | None = None,
    costs: Costs | None = None,
    captured: Iterable[torch.Tensor | torch.nn.Module] = (),
    check: bool = False,
    report: Callable[[RecomputeReport], Any] | None = None,
) -> Any:
    """Return what the last of `steps` gives, where each is called with what the one before gave, and the first with
    `x`. Few of the states between them are kept; going back, the others are recomputed.

        y = chain(model.layers, x, memory=8)

    - `steps`: modules, or functions. Each gives a tensor, or a tuple of tensors and plain values, which are the
      arguments of the next. They may not change these in place. The order of calls, and with it the number of steps, is
      fixed; what depends on random numbers of torch, on autocast, or on buffers is the same when it is recomputed.
    - `memory`, `disk`: how many states are kept, `x` among them, or bytes ("512MiB", which are counted in states of the
      size of `x`), or "unlimited". Those on the disk are checkpoints of this format in `folder`, which are written in
      the background, read ahead and verified; a folder without `disk` is one without limit.
    - `schedule`, `period`, `costs`: as in `ckptfmt.recompute.gradient`. "auto" takes the costs as given, and measures
      none.
    - `captured`: tensors that require grad, and modules that have some, which a function uses and that are neither
      parameters of a module among the steps nor found in closures, defaults, partials and globals. If one is missing,
      the backward pass says so.
    - `check`: compare each state that is computed again with what it was; raise `not-deterministic` where it differs.
    - `report`: called with a `RecomputeReport` once the backward pass is over.

    Where no gradient is asked for, the steps are just called. A chain is gone back through once, without
    `create_graph`. Its files are removed then, or when the graph is let go; after a crash, by `gc`.

    Raises `InputError` (`bad-option`, `state-changed`, `not-deterministic`, `unsupported-leaf`), `StorageError`, and
    `UnsupportedError` (`missing-package`).
    """
    package("checkpoint_schedules", "recomputing")
    functions = _callables(steps)
    _refuse_transforms(x)
    _refuse_divided(functions)
    slots, name = _asked(len(functions), x, memory, disk, folder, schedule, period)
    also = [tensor for value in captured for tensor in parameters_of(value)]
    parameters = [_once([*parameters_of(function), *also]) for function in functions]
    every = _once([tensor for some in parameters for tensor in some])
    inputs = [value for value in x if isinstance(value, torch.Tensor)]
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in [*inputs, *every]):
        return _called(functions, x)
    run = _ChainRun(ChainSteps(functions, x, parameters), every, report)
    run.begin(name, len(functions), slots, costs or Costs(), folder, check)
    outputs = _ChainFunction.apply(run, len(x), *x, *every)  # type: ignore[no-untyped-call]
    return outputs[0] if run.gives_one else outputs


def _callables(steps: Iterable[TorchStep]) -> list[TorchStep]:
    found = list(steps) if isinstance(steps, Iterable) else []
    other = next((step for step in found if not callable(step)), None)
    if not found or other is not None:
        expected = "modules and functions, at least one"
        raise fault("bad-option", "steps=", found=repr(steps if other is None else other), expected=expected)
    return found


def _refuse_transforms(x: tuple[Any, ...]) -> None:
    """Refuse what would ask for derivatives of another kind."""
    if torch.compiler.is_compiling():
        message = "a chain cannot be compiled"
        raise fault("unsupported-leaf", message, advice="Compile its steps, and call the chain outside")
    tensors = [value for value in x if isinstance(value, torch.Tensor)]
    if torch._C._functorch.peek_interpreter_stack() is not None:
        message = "a chain cannot be within a transform of torch.func (grad, vmap, jvp, ...)"
        raise fault("unsupported-leaf", message, advice="Call the steps themselves there")
    if forward_ad._current_level >= 0:
        duals = [forward_ad.unpack_dual(tensor) for tensor in tensors]  # type: ignore[no-untyped-call]
        if any(dual.tangent is not None for dual in duals):
            advice = "Call the steps themselves there"
            raise fault("unsupported-leaf", "a chain has no forward-mode derivatives", advice=advice)


def _refuse_divided(functions: list[TorchStep]) -> None:
    for number, function in enumerate(functions):
        module = divided_in(function)
        if module is not None:
            message = f"step {number} has a module of FSDP, whose parameters are others while it is called"
            advice = "Give the module that has the chain to FSDP instead, or use offload(), or torch.utils.checkpoint"
            raise fault("unsupported-leaf", message, found=type(module).__name__, advice=advice)


def _asked(
    steps: int,
    x: tuple[Any, ...],
    memory: SnapshotBudget,
    disk: SnapshotBudget,
    folder: str | os.PathLike[str] | None,
    schedule: str | None,
    period: int | None,
) -> tuple[Slots, str]:
    """The snapshots in each tier, and the name of the schedule."""
    period = None if period is None else count_asked("period=", period)
    if disk is None and folder is not None:
        disk = "unlimited"
    size = memory_of([value for value in x if isinstance(value, torch.Tensor)])
    slots = Slots(snapshots_in("memory", memory, size), snapshots_in("disk", disk, size), period)
    if slots.disk and folder is None:
        raise fault("bad-option", "folder=", expected="where snapshots on the disk go")
    if not slots.memory and not slots.disk:
        if steps > 1:
            advice = "Say how many are held at a time, in memory= or disk="
            raise fault("bad-option", "no snapshots can be held", found=0, expected="1 or more", advice=advice)
        slots = slots._replace(memory=1)
    name = usual(slots, is_online=False) if schedule is None else schedule
    if name != "auto":
        kind_named(name)
        check_slots(name, slots)
    return slots, name


def _once(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _called(functions: list[TorchStep], x: tuple[Any, ...]) -> Any:
    values: Any = x
    for function in functions:
        values = function(*values) if isinstance(values, tuple | list) else function(values)
    return tuple(values) if isinstance(values, list) else values


@functools.lru_cache(16)
def _table(name: str, steps: int, slots: Slots, costs: Costs) -> ActionTable:
    """The actions of a schedule, which every pass through a model asks for again."""
    return table_of(name, steps, slots, costs)


_best = functools.lru_cache(16)(best_schedule)


class _ChainRun:
    """One forward pass through a chain, and one back. It is let go with the graph, and its files with it."""

    def __init__(
        self,
        computation: ChainSteps,
        parameters: list[torch.Tensor],
        report: Callable[[RecomputeReport], Any] | None,
    ) -> None:
        self._computation, self._parameters, self._report = computation, parameters, report
        self._versions = [version(tensor) for tensor in parameters]
        self._driver: Driver | None = None
        self.gives_one = False

    def begin(
        self, name: str, steps: int, slots: Slots, costs: Costs, folder: str | os.PathLike[str] | None, check: bool
    ) -> None:
        if name == "auto":
            name = _best(steps, slots, costs)
        slots = slots_for(name, slots)
        table = _table(name, steps, slots, costs)
        traffic, stack = Traffic(), contextlib.ExitStack()
        self._disk: DiskTier | None = None
        if slots.disk:
            place = stack.enter_context(scratch(folder))
            run = os.path.basename(place)
            self._disk = DiskTier(place, self._computation, run, traffic, durable=False)
            for line in self._disk.lines:  # the steps, which the disk has, may hold this run
                stack.callback(line.wait)
        self._close = closed_with(self, stack.close)
        self._snapshots = Snapshots(self._computation, self._disk, traffic)
        self._driver = Driver(self._computation, self._snapshots, table, check=check)
        self._name, self._slots = name, slots

    def forward(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        assert self._driver is not None
        try:
            self._driver.begin(self._computation.initial(values))
            final = self._driver.forward()
            if self._disk is not None:
                self._disk.settle()  # whoever gets the outputs may change them
        except BaseException:
            self._end()
            raise
        self.gives_one = final.is_one
        # none is a view then, which could not be changed in place
        return tuple(value.detach() if isinstance(value, torch.Tensor) else value for value in final.values)

    def backward(self, adjoints: Adjoints, needs: tuple[bool, ...]) -> tuple[Adjoints, Adjoints]:
        """The gradients of the inputs, and of the parameters that are needed, which `needs` says of each."""
        driver = self._driver
        if driver is None:
            message = "a chain can be gone back through once: its snapshots are used up"
            raise fault("bad-option", message, advice="Add what is to be differentiated, and call backward once")
        try:
            if [version(tensor) for tensor in self._parameters] != self._versions:
                message = "a parameter was changed in place between the forward pass and the one back"
                raise fault("state-changed", message, advice="Call optimizer.step() after backward()")
            pairs = zip(self._parameters, needs, strict=True)
            self._computation.go_back({id(tensor) for tensor, needed in pairs if needed})
            found = driver.backward(adjoints)
            if self._report is not None:
                self._report(report_of(self._name, self._slots, driver, self._snapshots))
        finally:
            self._end()
        gradients = self._computation.gradients
        return found, [gradients.pop(id(tensor), None) for tensor in self._parameters]

    def _end(self) -> None:
        self._driver = self._disk = None
        del self._snapshots
        self._close()


class _ChainFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _ChainRun, count: int, *values: Any) -> tuple[Any, ...]:
        ctx.run, ctx.count = run, count
        ctx.set_materialize_grads(False)
        ctx.of_input = [isinstance(value, torch.Tensor) for value in values[:count]]
        outputs = run.forward(values[:count])
        tensors = [value for value in outputs if isinstance(value, torch.Tensor)]
        ctx.mark_non_differentiable(*[t for t in tensors if not (t.is_floating_point() or t.is_complex())])
        ctx.of_output = [isinstance(value, torch.Tensor) for value in outputs]
        return outputs

    @staticmethod
    def backward(ctx: Any, *adjoints: Any) -> Any:
        if torch.is_grad_enabled():
            message = "a chain cannot be differentiated twice"
            raise fault("bad-option", message, found="create_graph=True", expected="create_graph=False")
        given = [adjoint for adjoint, there in zip(adjoints, ctx.of_output, strict=True) if there]
        found, parameters = ctx.run.backward(given, ctx.needs_input_grad[2 + ctx.count :])
        tensors = iter(found)
        inputs = [next(tensors) if there else None for there in ctx.of_input]
        return None, None, *inputs, *parameters
