"""What a file or a folder that is no checkpoint looks like, so that an error can say so, and what to do then."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from ..errors import CkptError, fault
from ..storage import MANIFEST, Storage, is_url

HEAD = 512  # bytes of a file that are looked at
SHOWN = 60  # characters of a text that are shown
_TAIL = (64 << 10) + 22  # bytes at the end of a ZIP archive, in which the record of its end lies, of 22 bytes or more
Read = Callable[[int, int], bytes]  # offset, length


class ForeignKind(NamedTuple):
    """What something is, in a few words, and what to do with it: None where `ckptfmt convert` reads it."""

    words: str
    advice: str | None = None


_UNPACK = "Unpack it first"
INCOMPLETE = "The copy or download is incomplete: fetch it again"
_FETCH = "Fetch the file again: this is what a server said in its place"
_OPEN = "Load it with the program that wrote it, and save its arrays and plain values"

_SIGNATURES: tuple[tuple[int, bytes, ForeignKind], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", ForeignKind("an HDF5 file")),
    (0, b"GGUF", ForeignKind("a GGUF file")),
    (0, b"\0\0\6\x08", ForeignKind("the index of a TensorFlow checkpoint")),  # its header, of six bytes, without a key
    (0, b"\x93NUMPY", ForeignKind("a NumPy .npy file")),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", ForeignKind("a torch.save file of before torch 1.6")),
    *((0, bytes([0x80, protocol]), ForeignKind("a Python pickle")) for protocol in (2, 3, 4, 5)),
    (0, b"\x1f\x8b", ForeignKind("a gzip file")),
    (0, b"\x28\xb5\x2f\xfd", ForeignKind("a zstd file")),
    (0, b"BZh", ForeignKind("a bzip2 file")),
    (0, b"\xfd7zXZ\0", ForeignKind("an xz file")),
    (0, b"\x04\x22\x4d\x18", ForeignKind("an lz4 file")),
    (0, b"7z\xbc\xaf\x27\x1c", ForeignKind("a 7-Zip archive", _UNPACK)),
    (257, b"ustar", ForeignKind("a tar archive")),
    (4, b"TFL3", ForeignKind("a TensorFlow Lite model")),
    (0, b"PAR1", ForeignKind("a Parquet file", _OPEN)),
    (0, b"ARROW1", ForeignKind("an Arrow file", _OPEN)),
)
# by the first member of a ZIP archive
_MEMBERS: tuple[tuple[re.Pattern[str], ForeignKind], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"/data\.pkl$|^[^/]+/(data/\d+|bytecode\.pkl|version)$", ForeignKind("a torch.save file")),
        (r"^[^/]+/data/(weights|constants)/|^serialized_\w+\.|^version$", ForeignKind("an exported program of torch")),
        (r"^data$", ForeignKind("an archive of Stable-Baselines3")),
        (r"^schema\.json$", ForeignKind("a skops file")),
        (r"\.npy$", ForeignKind("a NumPy .npz file")),
        (r"metadata\.json$", ForeignKind("a Keras model (.keras)")),
        ("", ForeignKind("a ZIP archive without a commit record", _OPEN)),
    )
)
_SUFFIXES = {"safetensors", "bin", "pt", "pth", "pt2", "jit", "ckpt", "h5", "hdf5", "npz", "npy", "eqx", "msgpack"}
_SUFFIXES |= {"gguf", "onnx", "tflite", "mlmodel", "keras", "index", "pkl", "pickle"}
_SUFFIXES |= {"joblib", "skops", "nemo", "tar", "tgz", "gz", "zst", "xz", "bz2", "lz4"}
_WEIGHTS = re.compile(rf".*\.({'|'.join(sorted(_SUFFIXES))})(\.index\.json)?").fullmatch
# what lies in a folder that is a checkpoint of others
_FOLDERS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({".metadata"}), "a directory of torch.distributed.checkpoint"),
    (frozenset({"zero_to_fp32.py", "mp_rank_00_model_states.pt"}), "a run of DeepSpeed"),
    (frozenset({"_METADATA", "_CHECKPOINT_METADATA"}), "a directory of Orbax"),
    (frozenset({"zarr.json", ".zgroup", ".zarray"}), "a Zarr group"),
    (frozenset({"saved_model.pb", "saved_model.pbtxt"}), "a SavedModel of TensorFlow"),
)
_NUMBERS = re.compile(r"[0-9]+").fullmatch
LISTED = 4  # names that are shown


def refusal(storage: Storage, head: bytes) -> CkptError:
    """The error for a file that begins with `head` and is no checkpoint. [COM-005]"""
    kind = kind_of(head, storage.size(""), lambda offset, length: storage.read("", offset, length))
    return _refused(
        kind or ForeignKind("a file of another kind", "Give the path of a ckptfmt checkpoint"), storage.path
    )


def folder_refusal(path: str) -> CkptError:
    """The error for a folder without `COMMIT`. [COM-004] [COM-005]"""
    without = "this is a directory without a COMMIT file"
    try:
        names = [] if is_url(path) else sorted(name for name in os.listdir(path) if not name.startswith(".tmp"))
    except OSError:
        names = []
    found = next((words for signs, words in _FOLDERS if signs & set(names)), None)
    if found is not None:
        return _refused(ForeignKind(f"{found}, without a COMMIT file"), path)
    weights = [name for name in names if _WEIGHTS(name)] or [
        name for name in names if _NUMBERS(name.rpartition("-")[2]) and os.path.isdir(os.path.join(path, name))
    ]
    if not weights or MANIFEST in names:  # of a checkpoint that was not finished, or not copied whole
        return fault("not-a-checkpoint", without, path=path)
    more = f" and {len(weights) - LISTED} more" if len(weights) > LISTED else ""
    inside = f"{without}, with {', '.join(map(repr, weights[:LISTED]))}{more} in it"
    if all(name.endswith(".ckpt") or _NUMBERS(name.rpartition("-")[2]) for name in weights):
        advice = "Give the path of one checkpoint, or see `ckptfmt ls`"
    else:
        advice = how_to_convert(path)
    return fault("not-a-checkpoint", inside, path=path, advice=advice)


def _refused(kind: ForeignKind, path: str) -> CkptError:
    advice = how_to_convert(path) if kind.advice is None else kind.advice
    return fault("not-a-checkpoint", f"this is {kind.words}", path=path, advice=advice)


def how_to_convert(path: str) -> str:
    """The command that makes a checkpoint of what is at a path."""
    if type(path) is not str and isinstance(path, str):  # `storage.held.HeldPlace`
        return "ckptfmt.convert makes a checkpoint of it"
    name = os.path.normpath(path)
    if is_url(path):
        name = os.path.basename(name)
    stem, suffix = os.path.splitext(name)
    target = f"{stem}-converted.ckpt" if suffix == ".ckpt" else f"{stem if _WEIGHTS(name) else name}.ckpt"
    line = f"ckptfmt convert {shlex.quote(name)} {shlex.quote(target)}"
    return f"{'Fetch it, and make' if is_url(path) else 'Make'} a checkpoint of it: {line}"


def kind_of(head: bytes, size: int, read: Read) -> ForeignKind | None:
    """What a file of `size` bytes is that begins with `head` (`HEAD` bytes, or all); None if it is like nothing known.
    Nothing of it is parsed, as that could take any memory. [LIM-007]"""
    if not head:
        return ForeignKind("an empty file", "The copy or download has failed: fetch it again")
    if not head.strip(b"\0"):
        return ForeignKind("zeros, at least at its beginning", "The copy or download was not finished: fetch it again")
    if (safetensors := _safetensors(head, size, read)) is not None:
        return safetensors
    if head[:4] == b"PK\3\4":
        return _archive(head, size, read)
    found = next((kind for at, magic, kind in _SIGNATURES if head[at : at + len(magic)] == magic), None)
    if found is not None:
        return found
    if _is_onnx(head):
        return ForeignKind("an ONNX model")
    return ForeignKind("a msgpack file, as flax writes it") if is_map(head) else _text(head)


def _safetensors(head: bytes, size: int, read: Read) -> ForeignKind | None:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or head[9:10] not in (b'"', b"}", b" ") or not 2 <= length < 1 << 40:
        return None
    if length > size - 8:
        looks_so = (length <= 100_000_000 and b'"dtype"' in head) or b"__metadata__" in head
        cut = f"a safetensors file that is cut off in its header: {size:,} bytes of more than {length + 8:,}"
        return ForeignKind(cut, INCOMPLETE) if looks_so else None
    return ForeignKind("a safetensors file") if read(7 + length, 1) in (b"}", b" ") else None


def _archive(head: bytes, size: int, read: Read) -> ForeignKind:
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("utf-8", "replace")
    kind = next(kind for pattern, kind in _MEMBERS if pattern.search(name))
    tail = read(max(0, size - _TAIL), min(size, _TAIL))
    if 0 <= tail.rfind(b"PK\5\6") <= len(tail) - 22:
        return kind
    words = (
        f"{kind.words.removesuffix(' without a commit record')} that is cut off: its directory, which comes last, is"
    )
    return ForeignKind(f"{words} missing", INCOMPLETE)


def _is_onnx(head: bytes) -> bool:
    """Whether these are the first bytes of a ModelProto: a version, some short texts, a graph."""
    at = 2 if head[:1] == b"\x08" else len(head)
    while at + 1 < len(head) and head[at : at + 1] in _ONNX_TEXTS:
        at += 2 + head[at + 1]
    return head[at : at + 1] == b"\x3a"


def is_map(head: bytes) -> bool:
    """Whether these are the first bytes of a msgpack map whose first key is a string."""
    skip = 1 if 0x81 <= head[0] <= 0x8F else {0xDE: 3, 0xDF: 5}.get(head[0], 0)
    return bool(skip) and len(head) > skip and (0xA0 <= head[skip] <= 0xBF or head[skip] in (0xD9, 0xDA, 0xDB))


_POINTER = re.compile(r"version https://git-lfs\.github\.com/spec/.*?^size ([0-9]+)$", re.DOTALL | re.MULTILINE).match
_ONNX_TEXTS = {b"\x12", b"\x1a", b"\x22", b"\x32"}  # producer, its version, domain, description
_PAGE = re.compile(r"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE).match
_XML_CODE = re.compile(r"\s*<\?xml.*?<Error>.*?<Code>(\w+)</Code>", re.DOTALL).match


def _text(head: bytes) -> ForeignKind | None:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a character may be cut off at the end of what is looked at
            return None
        text = head[: error.start].decode("utf-8")
    begins = f"which begins {text.strip()[:SHOWN]!r}"
    if found := _POINTER(text):
        words = f"a Git LFS pointer: it stands for a file of {int(found[1][:30]):,} bytes that was not fetched"
        return ForeignKind(words, "Fetch it: git lfs pull")
    if _PAGE(text):
        return ForeignKind(f"an HTML page, {begins}", _FETCH)
    if found := _XML_CODE(text):
        return ForeignKind(f"an error of a store: {found[1]}", _FETCH)
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    if text.lstrip()[:1] in ("{", "["):
        return ForeignKind(f"JSON text, {begins}", "If a server said this in place of the file, fetch it again")
    return ForeignKind(f"text, {begins}", "If a server said this in place of the file, fetch it again")
