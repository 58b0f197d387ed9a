"""PyTorch Lightning's checkpoints in this format: `Trainer(plugins=[CkptfmtIO()])`. Needs the package lightning.

Lightning chooses when to save and what to keep (`ModelCheckpoint`); its file is one checkpoint of this format, without
pickle, saved atomically, and with a digest for every byte. Hyperparameters and states of callbacks must be what a
checkpoint can hold: tensors, numbers, strings and containers of such.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import PurePath
from typing import Any

from ckptfmt.errors import fault
from ckptfmt.format.names import path_label
from ckptfmt.frameworks.adapter import is_stateful
from ckptfmt.frameworks.target import flatten
from ckptfmt.packages import needed_by
from ckptfmt.storage import is_url, path_of
from ckptfmt.storage.temporaries import take_away

from .checkpoint import load, save

with needed_by("ckptfmt_torch.lightning"):
    from lightning.fabric.plugins import CheckpointIO

_HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")  # Lightning's keys


class CkptfmtIO(CheckpointIO):  # type: ignore[misc]  # not typed where Lightning is not installed
    """Saves, loads and removes the checkpoints of a Trainer. `options` are those of `ckptfmt.save`.

    What is at the path is replaced atomically, as Lightning means it. `storage_options` of Lightning go to fsspec.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Raises what `ckptfmt.save` raises; what no checkpoint can hold is named by its path."""
        if not is_url(name := path_of(path)):
            os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
        options = {"coordinator": None, "overwrite": True, **self.options}
        if storage_options is not None:
            options["storage_options"] = storage_options
        plain = _plain(checkpoint)
        _check_hyperparameters(plain, path)
        save(path, plain, **options)

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


def _check_hyperparameters(checkpoint: dict[str, Any], path: Any) -> None:
    """Refuse objects of which a state alone would be stored, which does not make them again."""
    for key in _HYPERPARAMETERS:
        for at, value in flatten(checkpoint.get(key), is_stateful):
            if is_stateful(value):
                place = path_label((key, *at))
                name = f"a {type(value).__name__} among the hyperparameters"
                hint = f"leave it out: save_hyperparameters(ignore=[{str(at[0] if at else key)!r}])"
                raise fault("unsupported-leaf", f"{name}: {hint}", path=path, tensor=place)


def _plain(value: Any) -> Any:
    """Lightning's own dicts (hyperparameters) as dicts, and paths as strings."""
    if isinstance(value, dict):
        items = {key: _plain(item) for key, item in value.items()}
        if type(value) is not OrderedDict:
            return items
        ordered = OrderedDict(items)
        vars(ordered).update(vars(value))  # the versions of modules
        return ordered
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return os.fspath(value) if isinstance(value, PurePath) else value
