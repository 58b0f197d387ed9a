"""Patches: SPEC.md section 7.4."""

import struct
from typing import TYPE_CHECKING, Any

from .faults import Fault, need
from .manifest import Tensor, fits

if TYPE_CHECKING:
    from .reader import Checkpoint

WHOLE, SAME, XOR = range(3)
NO_SOURCE = 0xFFFFFFFF
FORM = {"base": bytes, "result": (bytes, None), "generator": str, "form": bytes, "source": bytes}


class Patch:
    """How the tensors of a patch are made of those of its base, which is taken once the patch is known to be one."""

    def __init__(self, manifest: dict[str, Any], tensors: list[Tensor]) -> None:
        good = manifest["layout"] == "file" and manifest["format"] >= [1, 1]
        need(good and fits(manifest.get("patch"), FORM), "no patch, or not in its place [PATCH-001]")
        found = manifest["patch"]
        sizes = {len(found["base"]), len(found["result"] or bytes(32))}
        need(sizes == {32}, "a sha256 of another size [PATCH-001]")
        self.base, self.forms = found["base"].hex(), found["form"]
        good = len(self.forms) == len(tensors) and len(found["source"]) == 4 * len(tensors)
        need(good, "columns of other lengths than the tensors' [PATCH-002]")
        self.sources = struct.unpack(f"<{len(tensors)}I", found["source"])
        for form, source in zip(self.forms, self.sources, strict=True):
            need(form <= XOR and (form == WHOLE) == (source == NO_SOURCE), f"form {form}, source {source} [PATCH-002]")
        for form, tensor in zip(self.forms, tensors, strict=True):
            is_plain = tensor.codec is None and tensor.grid == [max(1, side) for side in tensor.stored]
            need(form != SAME or is_plain, f"{tensor.name!r} is the same, in other chunks [PATCH-003]")
        roots = {WHOLE: "tensors", SAME: "", XOR: "xor"}
        self.tensors = [tensor._replace(root=roots[form]) for form, tensor in zip(self.forms, tensors, strict=True)]
        self.checkpoint: Checkpoint | None = None

    def take(self, base: "Checkpoint") -> None:
        """Read through a base, whose sha256 is right."""
        for tensor, form, source in zip(self.tensors, self.forms, self.sources, strict=True):
            if form != WHOLE:
                there = base.tensors[source] if source < len(base.tensors) else None
                good = there is not None and (there.dtype, there.shape) == (tensor.dtype, tensor.shape)
                need(good, f"{tensor.name!r} is made of {there} [PATCH-005]")
        self.checkpoint = base

    def of_base(self, tensor: Tensor, box: list[range], verify: bool) -> bytes:
        """The storage elements of a tensor's source."""
        base = self.checkpoint
        if base is None:
            raise Fault("missing-base", f"the base {self.base} was not given [PATCH-004]", tensor=tensor.name)
        source = base.tensors[self.sources[tensor.number]]
        try:
            return base.gather(source, box, verify)
        except Fault as fault:
            if "label" not in fault.where and "tensor" in fault.where:
                fault.where["label"] = base.label(str(fault.where["tensor"]))
            raise
