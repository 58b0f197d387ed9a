"""Who takes part: one table."""

from __future__ import annotations

from importlib.util import find_spec

from benchmarks.contenders.arrays import Hdf5, Npz, TensorStore, ZarrPython
from benchmarks.contenders.ckptfmt import Ckptfmt
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.dcp_process import TorchDcpProcess
from benchmarks.contenders.loaders import FastSafetensors, RunAi, Tensorizer, TensorizerVerified
from benchmarks.contenders.machine import Memcpy, Plain, PlainWrite
from benchmarks.contenders.orbax import Orbax
from benchmarks.contenders.safetensors import (
    SafetensorsNumpy,
    SafetensorsNumpyPread,
    SafetensorsTorch,
    SafetensorsTorchPread,
)
from benchmarks.contenders.torch import TorchDcp, TorchSave, TorchSaveMapped

CONTENDERS: tuple[Contender, ...] = (
    Ckptfmt("ckptfmt", 'layout "file", every block verified on load; the mapped load does not verify.'),
    Ckptfmt(
        "ckptfmt packed", 'layout "packed": a directory of packs, as many processes write.', layout="packed", slow=True
    ),
    Ckptfmt("ckptfmt loose", 'layout "loose": a plain Zarr hierarchy and a manifest.', layout="loose", slow=True),
    Ckptfmt("ckptfmt zstd", 'layout "file", compression "zstd", for information.', compression="zstd", slow=True),
    SafetensorsNumpy(),
    SafetensorsNumpyPread(),
    SafetensorsTorch(),
    SafetensorsTorchPread(),
    FastSafetensors(),
    RunAi(),
    Tensorizer(),
    TensorizerVerified(),
    TorchSave(),
    TorchSaveMapped(),
    TorchDcp(),
    TorchDcpProcess(),
    Npz(),
    Hdf5(),
    ZarrPython(),
    TensorStore(),
    Orbax(),
    Plain(1),
    Plain(2),
    PlainWrite(),
    Memcpy(),
)

BY_NAME = {contender.name: contender for contender in CONTENDERS}


def missing(contender: Contender) -> str | None:
    """The first package that the contender needs and this environment lacks."""
    for module in contender.requires:
        try:
            found = find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            return module
    return None
