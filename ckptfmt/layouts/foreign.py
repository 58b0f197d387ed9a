"""What a file that is no checkpoint looks like, so that an error can say so."""

from __future__ import annotations

from ..storage import Storage

_CONVERT = "make a checkpoint of it with `ckptfmt convert`"
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file: {_CONVERT}"),
    (0, b"\x93NUMPY", "a NumPy .npy file"),
    (0, b"GGUF", f"a GGUF file: {_CONVERT}"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"\x80\x02", "a Python pickle, perhaps an old torch.save file"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
    (257, b"ustar", "a tar archive"),
)
_ZIP_MEMBERS: tuple[tuple[bytes, str], ...] = (
    (b"/data.pkl", f"a torch.save file: load it with torch.load, or {_CONVERT}"),
    (b".npy", f"a NumPy .npz file: {_CONVERT}"),
    (b"", "a ZIP archive without a commit record"),
)


def looks_like(head: bytes, storage: Storage) -> str:
    """A few words on a file that begins with `head` (up to 512 bytes)."""
    if not head:
        return "an empty file"
    if _is_safetensors(head, storage):
        return f"a safetensors file: load it with safetensors, or {_CONVERT}"
    if head[:4] == b"PK\3\4":
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return next(words for ending, words in _ZIP_MEMBERS if name.endswith(ending))
    return next(
        (words for at, magic, words in _SIGNATURES if head[at : at + len(magic)] == magic), "a file of another kind"
    )


def _is_safetensors(head: bytes, storage: Storage) -> bool:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or head[9:10] not in (b'"', b"}", b" ") or not 2 <= length <= storage.size("") - 8:
        return False
    return storage.read("", 7 + length, 1) in (b"}", b" ")  # its JSON is not parsed: it may take any memory [LIM-007]
