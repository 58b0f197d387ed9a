"""Chains of torch's modules and functions, and what is left of a forward and a backward pass over them, in bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peers import peer

torch = peer("torch")
WIDTH = 6
KINDS = ("linear", "norm", "dropout", "tied", "closure", "split", "join", "inner")


class Steps:
    """So many steps of some kinds, each with its own parameters, those of kind "tied" with one for all. `head`: what
    comes after them uses that one, too."""

    def __init__(self, kinds: list[str], dtype: str) -> None:
        torch.manual_seed(0)
        self.dtype = getattr(torch, dtype)
        self.tied = torch.nn.Linear(WIDTH, WIDTH, dtype=self.dtype)
        self.scale = torch.ones(WIDTH, dtype=self.dtype, requires_grad=True)
        self.modules: list[Any] = [self.tied]
        self.steps = [self._step(kind) for kind in kinds]

    def _step(self, kind: str) -> Callable[..., Any]:
        scale = self.scale
        if kind == "tied":
            return self.tied  # type: ignore[no-any-return]
        if kind == "closure":
            return lambda x, *rest: (torch.nn.functional.dropout(x, 0.3) * scale, *rest)
        if kind == "split":
            return lambda x, *rest: (x.sin(), x.argmax(1), *rest)
        if kind == "join":
            return lambda x, *rest: x + 0.1 * rest[0].reshape(-1, 1) if rest else x.t().contiguous().t()
        nn = torch.nn
        made: Any = {
            "linear": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH, dtype=self.dtype), nn.Tanh()),
            "norm": lambda: nn.BatchNorm1d(WIDTH, dtype=self.dtype),
            "dropout": lambda: nn.Sequential(nn.Dropout(0.4), nn.GELU(), nn.Linear(WIDTH, WIDTH, dtype=self.dtype)),
            "inner": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH, dtype=self.dtype), nn.Dropout(0.2), nn.ReLU(True)),
        }[kind]()
        self.modules.append(made)
        return lambda x, *rest: (made(x), *rest)

    def input(self) -> Any:
        torch.manual_seed(1)
        return torch.randn(5, WIDTH, dtype=self.dtype, requires_grad=True)

    def plain(self, x: Any) -> Any:
        values: Any = (x,)
        for step in self.steps:
            values = step(*values) if step is not self.tied else (step(values[0]),)
            values = values if isinstance(values, tuple) else (values,)
        return values

    def trained(self, forward: Callable[[Any], Any]) -> list[bytes]:
        """Go forward by a function that gives the outputs, and back; the bits of all that this leaves behind."""
        buffers = [buffer for module in self.modules for buffer in module.buffers()]
        before = [buffer.clone() for buffer in buffers]
        parameters = [self.scale, *(one for module in self.modules for one in module.parameters())]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)  # as of an earlier part of a batch
        x = self.input()
        outputs = forward(x)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        drawn = [torch.rand(3)]
        loss = sum(value.double().sin().sum() for value in outputs if value.is_floating_point())
        loss.backward()
        left = [*outputs, x.grad, *(one.grad for one in parameters), *buffers, *drawn, torch.rand(3)]
        found = [bits(one) for one in left]
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        return found


def bits(tensor: Any) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()  # type: ignore[no-any-return]
