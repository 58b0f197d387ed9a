"""Torch's adapter: tensors, modules and optimizers to and from checkpoints; torch.distributed.checkpoint in `dcp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptfmt.frameworks.adapter import register
from ckptfmt.on_demand import exports
from ckptfmt.packages import required_by

with required_by("ckptfmt_torch"):
    from .adapter import ADAPTER, Saved, TorchAdapter
    from .checkpoint import load, load_into, open, save
    from .subclasses import register_tensor_class

if TYPE_CHECKING:
    from .coordinator import TorchCoordinator

register(ADAPTER)
__getattr__ = exports(__name__, {"TorchCoordinator": "coordinator"})  # which programs of one process do without

__all__ = [
    "ADAPTER",
    "Saved",
    "TorchAdapter",
    "TorchCoordinator",
    "load",
    "load_into",
    "open",
    "register_tensor_class",
    "save",
]
