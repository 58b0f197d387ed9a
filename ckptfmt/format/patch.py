"""Patches (SPEC.md section 7.4): what a manifest says of the base, and how the elements of tensors are made of its.
Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import fault
from ..tuples import NamedTuple
from .arrays import SAME, WHOLE, XOR, ArraySpec
from .documents import bad
from .dtypes import Array
from .manifest import PATCH, PATCH_FORMAT

FORMS = {WHOLE: "whole", SAME: "same", XOR: "xor"}
NO_SOURCE = 0xFFFFFFFF  # of a tensor that is whole
_U32 = np.dtype("<u4")


class Patch(NamedTuple):
    """`base` and `result`: the sha256 of the manifests of the base, and of the checkpoint that the patch was made from
    (None: not known), whose `generator` this is. `sources`: for each tensor the number of the base's that it is made
    of, or `NO_SOURCE`; uint32."""

    base: bytes
    result: bytes | None
    generator: str
    sources: Array

    def encode(self, specs: Sequence[ArraySpec]) -> dict[str, Any]:
        """The key `patch` of a manifest with these tensors."""
        return {
            "base": self.base,
            "result": self.result,
            "generator": self.generator,
            "form": bytes(spec.form for spec in specs),
            "source": self.sources.astype(_U32).tobytes(),
        }


def decode_patch(
    document: Mapping[str, Any], version: tuple[int, int], layout: str, specs: Sequence[ArraySpec]
) -> tuple[tuple[ArraySpec, ...], Patch]:
    """The tensors of a manifest with their forms, and what it says of its base. [PATCH-001] [PATCH-002] [PATCH-003]"""
    if version < PATCH_FORMAT or layout != "file" or document["requires"] != [PATCH]:
        raise bad("a patch has version 1.1, layout 'file', and no other feature [PATCH-001]")
    match document.get("patch"):
        case {
            "base": bytes(base),
            "result": (bytes() | None) as result,
            "generator": str(generator),
            "form": bytes(forms),
            "source": bytes(sources),
        } if len(base) == 32 and (result is None or len(result) == 32):
            pass
        case _:
            raise bad("`patch` lacks a key, or has one of another type or size [PATCH-001]")
    if len(forms) != len(specs) or len(sources) != 4 * len(specs):
        raise bad("the columns of `patch` have another number of rows than there are tensors [PATCH-002]")
    numbers = np.frombuffer(sources, _U32)
    found = np.frombuffer(forms, np.uint8)
    if (found > XOR).any() or ((numbers == NO_SOURCE) != (found == WHOLE)).any():
        raise bad("a tensor of a patch has no form, or a source that its form has not [PATCH-002]")
    return formed(specs, forms), Patch(base, result, generator, numbers)


def formed(specs: Sequence[ArraySpec], forms: bytes) -> tuple[ArraySpec, ...]:
    """Specs with forms, of which those that are alike are one object; raises `bad-manifest` for a tensor that has no
    chunks and says how they are stored. [PATCH-003]"""
    known: dict[tuple[int, int], ArraySpec] = {}
    for spec, form in zip(specs, forms, strict=True):
        if (id(spec), form) not in known:
            known[id(spec), form] = spec._replace(form=form)
            if form == SAME and not (spec.is_raw and spec.grid == tuple(max(1, n) for n in spec.storage_shape)):
                raise bad("a tensor that is the same has one raw chunk as its grid and codec [PATCH-003]")
    return tuple([known[id(spec), form] for spec, form in zip(specs, forms, strict=True)])


def check_sources(patch: Patch, specs: Sequence[ArraySpec], base: Sequence[ArraySpec]) -> None:
    """Refuse tensors of a patch that those of its base, of these specs, cannot become. [PATCH-005]"""
    most = len(base)
    for number, (spec, source) in enumerate(zip(specs, patch.sources.tolist(), strict=True)):
        if spec.form == WHOLE:
            continue
        if source >= most or (base[source].dtype, base[source].shape) != (spec.dtype, spec.shape):
            raise fault(
                "bad-manifest",
                f"tensor {number} of the patch is made of tensor {source} of its base, which is another [PATCH-005]",
                found=f"{base[source].dtype.name} {base[source].shape}" if source < most else f"{most} tensors",
                expected=f"{spec.dtype.name} {spec.shape}",
            )


def xor(out: Array, other: Array) -> None:
    """Make of the bits of an array those by which they differ from another's of the same shape and storage type, or
    with such differences the other's. [PATCH-006]"""
    if out.dtype.kind == "c" and out.dtype.itemsize == 16:  # no integer is as wide
        xor(out.real, other.real)
        xor(out.imag, other.imag)
        return
    bits = np.dtype(f"u{out.dtype.itemsize}")
    mine = out.view(bits)
    np.bitwise_xor(mine, other.view(bits), out=mine)
