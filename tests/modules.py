"""Modules that have a say in their loading, and what torch's own `load_state_dict` makes of a state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckptfmt

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
nn = torch.nn


def values(module: Any) -> dict[str, Any]:
    """What a module is, not what it says of itself: its tensors by where they are."""
    found = {name: value.detach().clone() for name, value in module.named_parameters(remove_duplicate=False)}
    return found | {name: value.clone() for name, value in module.named_buffers(remove_duplicate=False)}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def beside_torch(folder: Path, state: Any, make: Callable[[], Any]) -> tuple[Any, ckptfmt.MatchReport]:
    """A module that we filled with a state, which is what torch makes of it."""
    theirs, ours = make(), make()
    ckptfmt_torch.save(folder / "c", state, overwrite=True, durable=False)
    torch.save(state, folder / "c.pt")
    theirs.load_state_dict(torch.load(folder / "c.pt", weights_only=False))
    report = ckptfmt_torch.load_into(folder / "c", ours)
    assert_same(values(ours), values(theirs))
    through_core = make()
    assert ckptfmt.load(folder / "c", into=through_core) is through_core
    assert_same(values(through_core), values(theirs))
    return ours, report


class Transposed(nn.Linear):  # type: ignore[misc,name-defined]
    """Stored transposed, by hooks."""

    def __init__(self, *sides: int) -> None:
        super().__init__(*sides)
        self.register_state_dict_post_hook(_turn)
        self.register_load_state_dict_pre_hook(_turn)


def _turn(module: Any, state: Any, prefix: str, *_: Any) -> None:
    if prefix + "weight" in state:
        state[prefix + "weight"] = state[prefix + "weight"].T.contiguous()


class Halved(nn.Linear):  # type: ignore[misc,name-defined]
    """Stored as half of what it is, by `_save_to_state_dict` and `_load_from_state_dict`."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"] / 2

    def _load_from_state_dict(self, state: Any, prefix: str, *more: Any) -> None:
        if prefix + "weight" in state:
            state[prefix + "weight"].mul_(2)  # which may not reach the file or a second load
        super()._load_from_state_dict(state, prefix, *more)


class Renamed(nn.Linear):  # type: ignore[misc,name-defined]
    """Takes the names and the version of an older program."""

    _version = 3

    def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *more: Any) -> None:
        if prefix + "kernel" in state:
            state[prefix + "weight"] = state.pop(prefix + "kernel")
        self.read = local.get("version")
        super()._load_from_state_dict(state, prefix, local, *more)


class Counting(nn.Linear):  # type: ignore[misc,name-defined]
    """Extra state of any form."""

    seen: Any = None

    def get_extra_state(self) -> Any:
        return self.seen

    def set_extra_state(self, state: Any) -> None:
        self.seen = state


class Derived(nn.Linear):  # type: ignore[misc,name-defined]
    """Computes a buffer once it is loaded."""

    def __init__(self, *sides: int) -> None:
        super().__init__(*sides)
        self.register_buffer("total", torch.zeros(()), persistent=False)
        self.register_load_state_dict_post_hook(_sum)


def _sum(module: Any, _: Any) -> None:
    module.total.copy_(module.weight.detach().sum())


class Ema(nn.Module):  # type: ignore[misc,name-defined]
    """A plain value in an overridden state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.updates = nn.Linear(3, 3), 0

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        return super().state_dict(*arguments, **options) | {"updates": self.updates}

    def load_state_dict(self, state: Any, *arguments: Any, **options: Any) -> Any:
        rest = dict(state)
        self.updates = rest.pop("updates")
        return super().load_state_dict(rest, *arguments, **options)
