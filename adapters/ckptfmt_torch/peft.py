"""Adapters of peft (LoRA and its like) in checkpoints. Requires the package peft.

save_adapter(model, "adapter")  # adapter_config.json, adapter_model.ckpt
model = load_adapter(base, "adapter")  # a PeftModel
merged = model.merge_and_unload()  # the base model with the adapter in its weights, which save_pretrained takes
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Unpack

from ckptfmt.calls import takes
from ckptfmt.errors import fault
from ckptfmt.frameworks.target import MatchReport
from ckptfmt.packages import required_by
from ckptfmt.storage import path_of

from .checkpoint import PathLike, load, save

with required_by("ckptfmt_torch.peft"):
    from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

if TYPE_CHECKING:
    from ckptfmt import SaveOptions, SaveReport

WEIGHTS = "adapter_model.ckpt"
DEFAULT = "default"  # the adapter that peft makes


@takes("ckptfmt.save_options.SaveOptions")
def save_adapter(model: Any, path: PathLike, adapter_name: str = DEFAULT, **options: Unpack[SaveOptions]) -> SaveReport:
    """Save an adapter of a `PeftModel` into a folder, which is made if it is missing: its configuration, and its
    weights by the names that peft gives them in files. `options` and errors are those of `ckptfmt_torch.save`."""
    folder = path_of(path)
    os.makedirs(folder, exist_ok=True)
    model.peft_config[adapter_name].save_pretrained(folder)
    state = get_peft_model_state_dict(model, adapter_name=adapter_name)
    return save(os.path.join(folder, WEIGHTS), state, **options)


def load_adapter(
    model: Any, path: PathLike, adapter_name: str = DEFAULT, *, is_trainable: bool = False, verify: bool = True
) -> Any:
    """Put an adapter onto a base model, or as a further one onto a `PeftModel`, which is given: from a folder with
    `adapter_config.json` and `adapter_model.ckpt`. Unless it `is_trainable`, it is frozen, and the model is in
    evaluation mode. Raises what `ckptfmt.load` does, and `MismatchError` where the adapter is not that of the model."""
    folder = path_of(path)
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = not is_trainable
    state = load(os.path.join(folder, WEIGHTS), verify=verify)
    if isinstance(model, PeftModel):
        model.add_adapter(adapter_name, config, low_cpu_mem_usage=True)
    else:
        model = get_peft_model(model, config, adapter_name, low_cpu_mem_usage=True)
    found = set_peft_model_state_dict(model, state, adapter_name=adapter_name, low_cpu_mem_usage=True)
    missing = [name for name, value in model.named_parameters() if value.is_meta]
    if missing or found.unexpected_keys:
        report = MatchReport(tuple(missing), tuple(found.unexpected_keys))
        raise fault("mismatch", f"the adapter is not that of this model: {report}", path=folder, report=report)
    return model if is_trainable else model.eval()
