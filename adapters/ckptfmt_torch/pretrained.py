"""Models of transformers in checkpoints: a folder with the model's configuration, or one file that has it in its
metadata. transformers makes the model from what is loaded, so whatever it does with weights is done: tying, renaming,
other dtypes, devices, buffers that no checkpoint has.

    save_pretrained(model, "folder")  # config.json, generation_config.json, model.ckpt
    model = from_pretrained(AutoModelForCausalLM, "folder", dtype="auto", device_map="cuda")
    save_pretrained(model, "model.ckpt")  # all in one file
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch

from ckptfmt import open as open_checkpoint
from ckptfmt.calls import takes
from ckptfmt.errors import fault
from ckptfmt.packages import required_by
from ckptfmt.storage import is_url, path_of

from .checkpoint import PathLike, save
from .weights import WEIGHTS, weights_at

with required_by("ckptfmt_torch.transformers"):
    from transformers import AutoConfig, GenerationConfig
    from transformers.dynamic_module_utils import custom_object_save

if TYPE_CHECKING:
    from ckptfmt import Checkpoint, SaveOptions, SaveReport

CONFIG, GENERATION = "config", "generation_config"  # keys of metadata, and files with .json behind it


@takes("ckptfmt.save_options.SaveOptions")
def save_pretrained(model: Any, path: PathLike, **options: Unpack[SaveOptions]) -> SaveReport:
    """Save a model of transformers: into one file, at a path that ends in `.ckpt` or a URL, or into a folder, which is
    made if it is missing, as `model.ckpt` beside `config.json` and `generation_config.json`. What else is in a folder
    stays, such as a tokenizer.

    The tensors are those that the model's own `save_pretrained` writes, with tied weights under all their names, and
    the configurations stand in the metadata, too. `options` and errors are those of `ckptfmt_torch.save`.
    """
    place = path_of(path)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__.removeprefix("FSDP")]
    setattr(config, _dtype_of(config), str(model.dtype).removeprefix("torch."))
    about = {CONFIG: json.loads(config.to_json_string())}
    generation = model.generation_config if model.can_generate() else None
    if generation is not None:
        about[GENERATION] = json.loads(generation.to_json_string())
    options["metadata"] = {**(options.get("metadata") or {}), **about}
    if not is_url(place) and not place.endswith(".ckpt"):
        os.makedirs(place, exist_ok=True)
        if getattr(type(model), "_auto_class", None) is not None:  # a class of the caller's, whose source goes along
            custom_object_save(model, place, config=config)
        config.save_pretrained(place)
        if generation is not None:
            generation.save_pretrained(place)
        place = os.path.join(place, WEIGHTS)
    return save(place, _state(model), **options)


def _dtype_of(config: Any) -> str:
    """How a configuration, and `from_pretrained`, call the dtype of weights: before transformers 4.56 otherwise."""
    return "dtype" if hasattr(config, "dtype") else "torch_dtype"


def _state(model: Any) -> Mapping[str, Any]:
    """What of a model is saved, by the names that its files have."""
    state: dict[str, Any] = model.state_dict()
    for name in getattr(model, "_keys_to_ignore_on_save", None) or ():
        state.pop(name, None)
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before transformers 5 a model in memory had the names and tensors of its files
        return state
    reverted: Mapping[str, Any] = revert_weight_conversion(model, state)
    return reverted


def from_pretrained(
    model_class: Any,
    path: PathLike,
    *,
    prefix: str = "",
    mmap: bool = True,
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Load a model of transformers, as `model_class.from_pretrained` does, from what `save_pretrained` wrote, or from
    any folder with `config.json` and one checkpoint of this format, or from a checkpoint.

    `model_class`: a class of models, or one that chooses, as `AutoModelForCausalLM`. `prefix`: the part of a checkpoint
    that is the model's, such as "model" in that of a training run; a configuration is then given by `config=`, or
    stands beside it or in its metadata. With `mmap`, parameters on the host, of the dtype that is stored, are private
    mappings of the file and take no memory before they are changed. `verify` checks all bytes, of what is mapped while
    transformers makes the model, and gives none where they are damaged. `options` are those of transformers (`dtype`,
    `device_map`, `config`, `attn_implementation`, `output_loading_info` …).

    Raises what `ckptfmt.load` and transformers raise, and `not-found` where there is no configuration.
    """
    place = path_of(path)
    weights = weights_at(place)
    reading: dict[str, Any] = {"storage_options": storage_options}
    with _configured(weights, place, reading, options) as folder:
        dtypes = [options.pop(name) for name in ("dtype", "torch_dtype") if name in options]
        config, trusted = options.pop("config", None), options.get("trust_remote_code")
        if config is None:
            config, options = AutoConfig.from_pretrained(folder, return_unused_kwargs=True, **options)
        if os.path.exists(os.path.join(folder, f"{GENERATION}.json")):
            options.setdefault(GENERATION, GenerationConfig.from_pretrained(folder))
    if prefix:
        reading["prefix"] = prefix
    with open_checkpoint(weights, **reading) as checkpoint:
        maps = mmap and not is_url(weights) and all(map(_lies_raw, checkpoint.tensors.values()))
        with _verified_beside(checkpoint) if maps and verify else contextlib.nullcontext():
            found = checkpoint.load(framework="torch", mmap=maps, verify=verify and not maps)
            state = {name: value.detach() for name, value in found.items() if isinstance(value, torch.Tensor)}
            model_class = _chosen(model_class, config, trusted)
            if dtypes:
                options[_dtype_of(config)] = dtypes[0]
            made = model_class.from_pretrained(None, config=config, state_dict=state, **options)
    model = made[0] if isinstance(made, tuple) else made
    model.name_or_path = model.config.name_or_path = place
    return made


def _lies_raw(tensor: Any) -> bool:
    return getattr(tensor, "codec", None) == "raw"


@contextlib.contextmanager
def _verified_beside(checkpoint: Checkpoint) -> Iterator[None]:
    """Verifies all that is mapped on another thread, while a block runs that mostly is Python: what is damaged is
    raised at its end."""
    with ThreadPoolExecutor(1, thread_name_prefix="ckptfmt-verify") as pool:
        verifying = pool.submit(checkpoint.load, mmap=True, verify=True)
        try:
            yield
        finally:
            verifying.result()


@contextlib.contextmanager
def _configured(weights: str, place: str, reading: dict[str, Any], options: Mapping[str, Any]) -> Iterator[str]:
    """A folder with the configurations of a model: that of its weights, or one that has those of their metadata."""
    folder = place if weights != place else os.path.dirname(place)
    if not is_url(weights) and os.path.exists(os.path.join(folder, f"{CONFIG}.json")):
        yield folder
        return
    with open_checkpoint(weights, **reading) as checkpoint:
        metadata = checkpoint.metadata if isinstance(checkpoint.metadata, dict) else {}
    if type(metadata.get(CONFIG)) is not dict and options.get("config") is None:
        message = "neither its metadata nor a config.json beside it say how the model is made"
        raise fault("not-found", message, path=weights, advice="Give config=")
    with tempfile.TemporaryDirectory() as made:
        for name in (CONFIG, GENERATION):
            if type(metadata.get(name)) is dict:
                Path(made, f"{name}.json").write_text(json.dumps(metadata[name]), encoding="utf-8")
        yield made


def _chosen(model_class: Any, config: Any, trusted: bool | None) -> Any:
    """The class of models that one which chooses, such as `AutoModel`, takes for a configuration."""
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is None:
        return model_class
    found = mapping.get(type(config), None)
    if isinstance(found, type):
        return found
    with torch.device("meta"):
        return type(model_class.from_config(config, trust_remote_code=trusted))
