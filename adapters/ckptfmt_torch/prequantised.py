"""Weights of bitsandbytes in 4 bits. A state dict has one as packed bytes and, beside it, the tensors that say how they
were quantised; torch's `load_state_dict` knows nothing of the latter, so the Parameter is made of both as bitsandbytes
does it, and takes the place of the module's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from .own_code import Held, Sub

_PARAMETER = "bitsandbytes.nn.modules.Params4bit"
_STATE = ".quant_state.bitsandbytes__"  # in a name beside the weight's, before how it is quantised


class Prequantised:
    """Those of some submodules of which a state, by its names, has the tensors beside."""

    def __init__(self, subs: Iterable[Sub], names: Collection[Any]) -> None:
        held = {one.name: one for sub in subs for one in sub.held if _name(type(one.value)) == _PARAMETER}
        texts = [name for name in names if isinstance(name, str)] if held else []
        beside = {name: [text for text in texts if text.startswith(f"{name}.")] for name in held}
        self.held: dict[str, Held] = {
            name: one for name, one in held.items() if any(text.startswith(name + _STATE) for text in beside[name])
        }
        self._beside = {name: beside[name] for name in self.held}

    @property
    def beside(self) -> Iterator[str]:
        """The names of the tensors beside the weights."""
        for names in self._beside.values():
            yield from names

    def take(self, state: dict[Any, Any]) -> None:
        """Put the weights of a state into their places; what is left of it, torch's code copies onto itself."""
        for name, held in self.held.items():
            stats = {text.removeprefix(f"{name}."): state.pop(text) for text in self._beside[name]}
            kind: Any = type(held.value)
            device = state[name].device if held.value.is_meta else held.value.device
            made = kind.from_prequantized(state[name], stats, held.value.requires_grad, device, module=held.module)
            setattr(held.module, held.attribute, made)
            state[name] = made.data


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
