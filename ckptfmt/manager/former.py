"""The options of `CheckpointManager` as 1.0 had them. They go on for a version."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container
from typing import Any, ParamSpec, cast

from ..deprecated import warn_deprecated
from ..errors import fault
from .options import Background, one_of

P = ParamSpec("P")

_BACKGROUND = ("max_in_flight", "when_full", "at_exit")
_FLAX = ("prefix", "keep_every_n_steps")


def takes_former(init: Callable[P, None]) -> Callable[P, None]:
    """What has `CheckpointManager.__init__` take the options of 1.0, too; mode "flax" makes it the manager of flax."""

    @functools.wraps(init)
    def translated(*arguments: P.args, **options: P.kwargs) -> None:
        asked = _with_background(cast("dict[str, Any]", options))
        mode = asked.get("mode", "ckptfmt")
        one_of("mode", mode, "ckptfmt", "flax")
        if mode == "flax":
            _init_flax(*arguments, **_without(asked, ("mode",)))
        else:
            init(*arguments, **_without_flax(asked))

    return translated


def _with_background(options: dict[str, Any]) -> dict[str, Any]:
    found = {name: options[name] for name in _BACKGROUND if name in options}
    if not found:
        return options
    if options.get("background") is not None:
        raise fault("bad-option", f"{next(iter(found))}= stands beside background=", expected="background= alone")
    names = ", ".join(f"{name}=" for name in found)
    warn_deprecated(f"CheckpointManager({names})", f"background=Background({names})")
    return {**_without(options, found), "background": Background(**found)}


def _init_flax(manager: Any, *arguments: Any, **options: Any) -> None:
    from .flax import FlaxCheckpointManager
    from .manager import CheckpointManager

    is_plain = type(manager) is CheckpointManager
    if not is_plain:
        expected = "a class that is derived from FlaxCheckpointManager"
        raise fault("bad-option", 'mode "flax" of a class that is derived from CheckpointManager', expected=expected)
    warn_deprecated('CheckpointManager(mode="flax")', "ckptfmt.manager.FlaxCheckpointManager")
    manager.__class__ = FlaxCheckpointManager
    if options.get("keep", 1) is None:  # as much as its default
        options = _without(options, ("keep",))
    FlaxCheckpointManager.__init__(manager, *arguments, **options)


def _without_flax(options: dict[str, Any]) -> dict[str, Any]:
    """Without what did nothing outside of mode "flax"."""
    if "mode" in options:
        warn_deprecated('CheckpointManager(mode="ckptfmt")', "CheckpointManager without mode=")
    for name in _FLAX:
        if name in options:
            warn_deprecated(f"CheckpointManager({name}=)", f"ckptfmt.manager.FlaxCheckpointManager({name}=)")
    return _without(options, ("mode", *_FLAX))


def _without(options: dict[str, Any], names: Container[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}
