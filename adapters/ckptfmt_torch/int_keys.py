"""States whose int keys torch.distributed.checkpoint wrote as text, which torch's optimizers and schedulers take
without complaint and then do not find."""

from __future__ import annotations

from typing import Any

from ckptfmt.format.names import is_int_text


def with_int_keys(state: Any, own: Any) -> Any:
    """The state of an object with ints for text keys: in the `state` of an optimizer, whose groups say what they are,
    and wherever the object's `own` state has ints. Empty states, which DCP leaves out, come back."""
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if isinstance(groups, list) and isinstance(own, dict) and isinstance(own.get("param_groups"), list):
        ids = {str(param): param for group in groups for param in group.get("params", ()) if type(param) is int}
        found = state.get("state", {})
        return {**state, "state": {ids.get(key, key): value for key, value in found.items()}}
    return _like(state, own)


def _like(state: Any, own: Any) -> Any:
    if not isinstance(state, dict) or not isinstance(own, dict):
        return state
    if own and all(type(key) is int for key in own) and all(map(is_int_text, state)):
        return {int(key): value for key, value in state.items()}
    return type(state)((key, _like(value, own.get(key))) for key, value in state.items())
