"""NumPy's .npz: a ZIP of .npy members, stored or compressed. Arrays of objects are refused, as they are pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from typing import Any

from numpy.lib import format as npy

from ...errors import CkptError, fault
from ...format.tree import Tree
from ..archive import Archive
from ..fit import CORE, Holds
from ..losses import LeftOut
from ..npy_members import npy_member
from ..probe import Probe
from ..source import Advance, Loss, OpenedSource, elements, mapped_file

SUFFIX = ".npy"  # of members, which NumPy leaves out of the names
LONGEST = (1 << 16) - 1  # bytes of a member's name


def check_name(name: str, beside: Collection[str]) -> None:
    """Refuse names that ZIP or NumPy cannot give back; raises `unsupported-key` and `name-collision`."""
    if "\0" in name or len(f"{name}{SUFFIX}".encode()) > LONGEST:
        raise fault("unsupported-key", f"a ZIP archive has no members with the name {name[:80]!r}")
    if f"{name}{SUFFIX}" in beside:
        raise fault("name-collision", f"NumPy takes {name + SUFFIX!r} for {name!r}, which stands beside it")


HOLDS = Holds(dtypes=CORE | {"datetime64", "timedelta64"}, separator="/", check_name=check_name)


def looks_like(probe: Probe) -> bool:
    if probe.head.startswith(b"PK\5\6"):  # an archive without members
        return probe.path.endswith(".npz")
    if not probe.head.startswith(b"PK\3\4"):
        return False
    members = Archive(mapped_file(probe.path)).members
    return bool(members) and all(name.endswith(".npy") for name in members)


def read(path: str) -> OpenedSource:
    archive = Archive(mapped_file(path))
    tree: dict[str, Any] = {}
    met: set[str] = set()
    losses: list[Loss] = []
    left_out = LeftOut(losses)
    for member in archive.members:
        name = member.removesuffix(SUFFIX)
        if name in met:
            raise fault("bad-source", f"two members are the array {name!r}", tensor=name)
        met.add(name)
        try:
            tensor = npy_member(archive, member, name)
        except CkptError as error:
            left_out.add(error)
            continue
        tree[name] = tensor[()].tolist() if tensor.dtype.kind in "SU" else tensor
    left_out.check(tree)
    return OpenedSource(tree, losses=tuple(losses))


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write a flat dict of tensors, stored as `np.savez` does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, tensor in tree.items():
            dtype = tensor.dtype.newbyteorder("<")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                descr = npy.dtype_to_descr(dtype)
                npy.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": tensor.shape})
                for part in elements(tensor):
                    file.write(part)
                    advance(len(part))
