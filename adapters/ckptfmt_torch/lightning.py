"""PyTorch Lightning's checkpoints in this format: `Trainer(plugins=[CkptfmtIO()])`. Requires the package lightning.

Lightning chooses when to save and what to keep (`ModelCheckpoint`); its file is one checkpoint of this format, without
pickle, saved atomically, and with a digest for every byte. Hyperparameters and states of callbacks must be what a
checkpoint can hold: tensors, and the plain values of docs/guide.md. Where a run is going to save, hyperparameters are
checked before it begins: Lightning finds the callback that does it through the entry point of this package.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter, OrderedDict, defaultdict
from typing import Any, Unpack
from weakref import WeakSet

import torch

import ckptfmt
from ckptfmt import SaveOptions
from ckptfmt.calls import takes
from ckptfmt.format.names import Path, path_label
from ckptfmt.frameworks.adapter import is_stateful
from ckptfmt.frameworks.target import flatten
from ckptfmt.packages import required_by
from ckptfmt.patterns import Patterns
from ckptfmt.storage import is_url, path_of
from ckptfmt.storage.temporaries import take_away
from ckptfmt.writing.request import skipped

from .checkpoint import load, save

with required_by("ckptfmt_torch.lightning"):
    from lightning.fabric.plugins import CheckpointIO
    from lightning.pytorch import Callback

_HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")  # Lightning's keys
_PROGRESS = ("epoch", "global_step")

_plugins: WeakSet[CkptfmtIO] = WeakSet()


class CkptfmtIO(CheckpointIO):  # type: ignore[misc]  # not typed where Lightning is not installed
    """Saves, loads and removes the checkpoints of a Trainer. `options` are those of `ckptfmt.save`; raises `bad-option`
    for others.

    The metadata have `epoch`, `global_step` and what the checkpoint callbacks monitor, beside what `metadata=` gives:
    `ckptfmt ls --sort` shows and sorts them. What is at the path is replaced atomically, as Lightning means it.
    `storage_options` of Lightning go to fsspec.
    """

    @takes(SaveOptions)
    def __init__(self, **options: Unpack[SaveOptions]) -> None:
        self.options = options
        _plugins.add(self)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Raises what `ckptfmt.save` raises; what no checkpoint can hold is named by its path, all of it at once."""
        if not is_url(name := path_of(path)):
            os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
        options: dict[str, Any] = {"coordinator": None, "overwrite": True, **self.options}
        if storage_options is not None:
            options["storage_options"] = storage_options
        plain = _plain(checkpoint)
        given = options.get("metadata", {})
        options["metadata"] = {**progress_of(plain), **given} if isinstance(given, dict) else given
        skip = options.get("skip")
        if _objects(plain, skip):
            check_hyperparameters(plain, skip).raise_refusals(path)
        try:
            save(path, plain, **options)
        except ckptfmt.InputError as error:
            if isinstance(error.report, ckptfmt.CheckReport):
                check_hyperparameters(plain, skip).raise_refusals(path)
            raise

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Everything that was saved, as torch tensors. `weights_only` makes no difference: nothing is ever executed."""
        device = map_location if not callable(map_location) and not isinstance(map_location, dict) else None
        found: dict[str, Any] = load(path, map_location=device)
        return found

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """A directory first gets a name that readers refuse, so that it is never half there."""
        name = path_of(path)
        if is_url(name):
            from fsspec.core import url_to_fs

            fs, place = url_to_fs(name)
            if fs.exists(place):
                fs.rm(place, recursive=True)
        elif os.path.isdir(name):
            take_away(os.path.abspath(name))
        elif os.path.exists(name):
            os.unlink(name)


class CheckHyperparameters(Callback):  # type: ignore[misc]
    """Looks, before a run with `CkptfmtIO` and a checkpoint callback begins, whether its hyperparameters can be saved,
    and raises for all that cannot: else the first epoch ended without its checkpoint."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        plugin = trainer.strategy.checkpoint_io
        while not isinstance(plugin, CkptfmtIO) and getattr(plugin, "checkpoint_io", None) is not None:
            plugin = plugin.checkpoint_io  # such as one that saves in the background
        if not isinstance(plugin, CkptfmtIO) or not trainer.checkpoint_callbacks:
            return
        holders = (pl_module, getattr(trainer, "datamodule", None))
        found = zip(_HYPERPARAMETERS, holders, strict=True)
        hyperparameters = {key: _plain(holder.hparams) for key, holder in found if getattr(holder, "hparams", None)}
        check_hyperparameters(hyperparameters, plugin.options.get("skip")).raise_refusals()


def callbacks() -> list[Callback]:
    """What Lightning adds to a Trainer: nothing in a program without a `CkptfmtIO`."""
    return [CheckHyperparameters()] if _plugins else []


def check_hyperparameters(checkpoint: dict[str, Any], skip: Patterns = None) -> ckptfmt.CheckReport:
    """What of a checkpoint of Lightning no save takes, with objects among the hyperparameters of which a state alone
    would be stored, which does not make them again."""
    objects = tuple(
        ckptfmt.Refusal(path_label(at), f"a {type(value).__name__} among the hyperparameters", _ignoring(at))
        for at, value in _objects(checkpoint, skip)
    )
    places = {refusal.path for refusal in objects}
    others = (refusal for refusal in ckptfmt.check(checkpoint, skip=skip).refused if refusal.path not in places)
    return ckptfmt.CheckReport((*objects, *map(_with_hint, others)))


def progress_of(checkpoint: dict[str, Any]) -> dict[str, int | float]:
    """What `ckptfmt ls` shows and sorts by: epoch and step of a checkpoint of Lightning, and what its checkpoint
    callbacks monitor, as it was then."""
    found: dict[str, int | float] = {key: checkpoint[key] for key in _PROGRESS if type(checkpoint.get(key)) is int}
    callbacks = checkpoint.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        monitor, score = (state.get("monitor"), state.get("current_score")) if isinstance(state, dict) else (None, None)
        if isinstance(score, torch.Tensor) and score.numel() == 1:
            score = score.item()
        if isinstance(monitor, str) and isinstance(score, int | float) and not isinstance(score, bool):
            found[monitor] = score
    return found


def _objects(checkpoint: dict[str, Any], skip: Patterns) -> list[tuple[Path, Any]]:
    is_skipped = skipped(skip) or (lambda _: False)
    hyperparameters = {key: checkpoint[key] for key in _HYPERPARAMETERS if key in checkpoint}
    found = ((at, value) for at, value in flatten(hyperparameters, is_stateful) if is_stateful(value))
    return [(at, value) for at, value in found if not any(is_skipped(at[:end]) for end in range(1, len(at) + 1))]


def _ignoring(at: Path) -> str:
    return f"leave it out: save_hyperparameters(ignore=[{str(at[1] if len(at) > 1 else at[0])!r}])"


def _with_hint(refusal: ckptfmt.Refusal) -> ckptfmt.Refusal:
    """What helps for a hyperparameter besides."""
    key, _, name = refusal.path.partition("/")
    if key not in _HYPERPARAMETERS or not name:
        return refusal
    hint = f"save_hyperparameters(ignore=[{name.partition('/')[0]!r}])"
    return dataclasses.replace(refusal, advice=f"{refusal.advice}, or leave it out: {hint}")


def _plain(value: Any) -> Any:
    """Lightning's own dicts (hyperparameters) as dicts."""
    if isinstance(value, dict) and not isinstance(value, Counter | defaultdict):
        items = {key: _plain(item) for key, item in value.items()}
        if type(value) is not OrderedDict:
            return items
        ordered = OrderedDict(items)
        vars(ordered).update(vars(value))  # the versions of modules
        return ordered
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value
