"""Which torch dtype is which dtype of SPEC.md section 3, and the arrays that see a tensor's memory.

NumPy lacks bfloat16 and the float8 kinds: their bits go over as unsigned integers of the same width, which NumPy sees
as ml_dtypes'. Torch's int1 … uint7 have no counterpart: they have no arithmetic and no copy, and nothing says whether
a byte of theirs holds one element or several.
"""

from __future__ import annotations

import torch

from ckptfmt.errors import fault
from ckptfmt.format.dtypes import DTYPES, Array, DType, dtype_of, pack

_CARRIERS = {"uint8": torch.uint8, "uint16": torch.uint16, "uint32": torch.uint32}

TORCH: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name, row in DTYPES.items() if row.bits >= 8 and hasattr(torch, name)
}
if hasattr(torch, "float4_e2m1fn_x2"):  # two elements in a byte, the first in the low bits, as DTYPE-004 has it
    TORCH["float4_e2m1fn"] = torch.float4_e2m1fn_x2
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH.items()}


def row_of(dtype: torch.dtype) -> DType:
    """The row of the dtype table for a torch dtype; raises `unsupported-dtype`."""
    if dtype not in NAMES:
        raise fault("unsupported-dtype", f"{dtype} has no counterpart in the format", found=dtype)
    return DTYPES[NAMES[dtype]]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a dtype that NumPy has, unsigned integers where it lacks the tensor's own."""
    row = row_of(tensor.dtype)
    return tensor if row.is_core else tensor.view(_CARRIERS[row.storage])


def array_of(tensor: torch.Tensor) -> Array:
    """The host memory of a tensor as an array of its dtype, without a copy. Not for dtypes that torch packs."""
    array: Array = bits(tensor).numpy()
    return array.view(row_of(tensor.dtype).numpy)


def tensor_of(array: Array) -> torch.Tensor:
    """A tensor of an array's dtype, bit for bit: over the same memory, but for dtypes that torch packs."""
    row = dtype_of(array.dtype)
    if row is None or row.name not in TORCH:
        raise fault("framework-dtype", f"torch has no tensors of {array.dtype}", found=array.dtype)
    if row.is_core:
        return torch.from_numpy(array)
    if row.per == 1:
        return torch.from_numpy(array.view(row.storage)).view(TORCH[row.name])
    if not array.shape or array.shape[-1] % row.per:
        message = f"torch packs {row.per} elements of {row.name} into one: the last axis must be a multiple of that"
        raise fault("framework-dtype", message, found=array.shape)
    return torch.from_numpy(pack(array, row)).view(TORCH[row.name])
