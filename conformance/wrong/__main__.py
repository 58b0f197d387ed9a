"""The wrong implementations: the adapter of `ckptfmt`, each with one fault."""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys
import zipfile
import zlib
from functools import partial
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt.errors import fault
from ckptfmt.format import commit, digests, paged_manifest, pages, tensor_pages, tree_pages
from ckptfmt.format import tree as trees
from ckptfmt.format.chunk_table import ChunkTable
from ckptfmt.format.patch import xor
from ckptfmt.layouts import directory, packed, pieces
from ckptfmt.maintenance import verification
from ckptfmt.migration import apply
from ckptfmt.reading import bases, blocks, located, patched
from ckptfmt.reading.checkpoint import StoredCheckpoint
from ckptfmt.reading.fetch import Fetcher
from ckptfmt.storage import disk

from ..implementations.ckptfmt import Adapter, RecordingDisk
from ..implementations.server import Refused

Request = dict[str, Any]


class AcceptsEverything(Adapter):
    def do_open(self, request: Request) -> dict[str, Any]:
        try:
            return super().do_open(request)
        except ckptfmt.CkptError:
            return {}


class RefusesEverything(Adapter):
    def do_open(self, request: Request) -> dict[str, Any]:
        raise Refused("error", {"code": "bad-manifest"})


class SwapsEndianness(Adapter):
    def show(self, value: Any, *, read: bool) -> dict[str, Any]:
        shown = super().show(value, read=read)
        return _swapped(shown) if shown["type"] == "tensor" else shown

    def answer(self, request: Request) -> dict[str, Any]:
        reply = super().answer(request)
        if request["op"] in ("read_slice", "read_node") and "ok" in reply:
            reply["ok"]["value"] = _swapped(reply["ok"]["value"])
        return reply


def _swapped(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "hex": bytes.fromhex(value["hex"])[::-1].hex()} if "hex" in value else value


class DropsAliases(Adapter):
    fresh = 0

    def show(self, value: Any, *, read: bool) -> dict[str, Any]:
        shown = super().show(value, read=read)
        if shown["type"] == "tensor":
            self.fresh += 1
            shown["index"] = self.fresh
        return shown


class ReadsWholeFile(Adapter):
    def do_read_slice(self, request: Request) -> dict[str, Any]:
        with open(self.file, "rb") as data:
            data.read()
        return super().do_read_slice(request)


class DecodesFloatText(Adapter):
    def show(self, value: Any, *, read: bool) -> dict[str, Any]:
        return super().show(float(f"{value:.12g}") if type(value) is float else value, read=read)


class ForgetsTuples(Adapter):
    def show(self, value: Any, *, read: bool) -> dict[str, Any]:
        return super().show(list(value) if type(value) is tuple else value, read=read)


class SortsDicts(Adapter):
    def show(self, value: Any, *, read: bool) -> dict[str, Any]:
        if type(value) is dict:
            value = dict(sorted(value.items(), key=lambda item: str(item[0])))
        return super().show(value, read=read)


class NamesWrongTensor(Adapter):
    def refusal(self, error: Exception) -> Refused | None:
        refused = super().refusal(error)
        if refused is not None and "tensor" in refused.reply.get("error", {}):
            refused.reply["error"]["tensor"] = "another"
        return refused


class LeavesTemporary(Adapter):
    def do_write(self, request: Request) -> dict[str, Any]:
        with open(f"{request['file']}.ckptfmt-tmp", "wb"):
            return super().do_write(request)


class Overwrites(Adapter):
    def do_write(self, request: Request) -> dict[str, Any]:
        if os.path.isfile(request["file"]):
            os.remove(request["file"])
        shutil.rmtree(request["file"], ignore_errors=True)
        return super().do_write(request)


class ClockInFile(Adapter):
    count = 0

    def do_write(self, request: Request) -> dict[str, Any]:
        self.count += 1
        return super().do_write({**request, "metadata": {"type": "int", "value": str(self.count)}})


class Crashes(Adapter):
    def refusal(self, error: Exception) -> Refused | None:
        return None


class PrintsJunk(Adapter):
    def do_open(self, request: Request) -> dict[str, Any]:
        os.write(1, b"opening...\n")
        return super().do_open(request)


class LiesAboutFeatures(Adapter):
    def do_read(self, request: Request) -> dict[str, Any]:
        assert self.checkpoint is not None
        if any(isinstance(one, ckptfmt.Tensor) and one.codec == "zstd" for one in self.checkpoint.tensors.values()):
            raise Refused("unsupported", "codec:zstd")
        return super().do_read(request)


class MigratesInPlace(Adapter):
    def do_migrate(self, request: Request) -> dict[str, Any]:
        reply = super().do_migrate(request)
        if os.path.isfile(request["file"]):
            shutil.copyfile(request["target"], request["file"])
        return reply


class UpgradesByCopying(Adapter):
    def do_upgrade(self, request: Request) -> dict[str, Any]:
        copy: Any = shutil.copytree if os.path.isdir(request["file"]) else shutil.copyfile
        copy(request["file"], request["target"])
        return {}


class IgnoresTensorOrder(Adapter):
    """Numbers tensors by its own walk of the tree, whatever the index says."""

    def do_open(self, request: Request) -> dict[str, Any]:
        reply = super().do_open(request)
        assert self.checkpoint is not None
        numbers: dict[int, int] = {}
        for _, node in trees.leaves(self.checkpoint._view.stored.manifest.tree):
            if isinstance(node, list) and node[0] == "tensor":
                node[1] = numbers.setdefault(node[1], len(numbers))
        return reply


class TrustsZipDirectory(Adapter):
    """Looks the places of chunks up in the ZIP's directory."""

    def do_open(self, request: Request) -> dict[str, Any]:
        reply = super().do_open(request)
        if os.path.isfile(request["file"]) and self.checkpoint is not None:
            with zipfile.ZipFile(request["file"]) as archive, open(request["file"], "rb") as file:
                headers = [member.header_offset for member in archive.infolist() if "/c/" in member.filename]
                data = file.read()
            table = self.checkpoint._view.stored.manifest.table
            vars(table)["offsets"] = [_payload(data, header) for header in headers]
        return reply


def _payload(data: bytes, header: int) -> int:
    name, extra = struct.unpack_from("<2H", data, header + 26)
    return header + 30 + int(name) + int(extra)


# ---- faults within the package


def ignores_digests() -> Adapter:
    vars(blocks)["digest_named"] = lambda name: digests.digest_named(name)._replace(of=_Anything)
    setattr(blocks.BlockReader, "check", lambda *_: None)  # noqa: B010
    return Adapter()


class _Anything(bytes):
    """A digest that equals every other."""

    def __new__(cls, _: Any) -> _Anything:
        return super().__new__(cls)

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def ignores_commit_record() -> Adapter:
    """Takes from the record where the manifest lies, and believes the rest."""
    record = re.compile(
        rb"ckptfmt/(?P<major>\d+)\.(?P<minor>\d+) (?P<layout>\S+) manifest=(?P<offset>\d+)\+(?P<length>\d+) "
        rb"sha256=(?P<sha256>\S+) frame=(?P<frame>\S+) crc32=(?P<crc32>[0-9a-f]*)[\s\S]*"
    )

    def decode(line: bytes, _: int) -> commit.CommitRecord:
        found = record.fullmatch(line)
        if found is None:
            raise fault("bad-record", "there is no record")
        version, extent = (int(found["major"]), int(found["minor"])), (int(found["offset"]), int(found["length"]))
        sums = (bytes.fromhex(found[name].decode()) for name in ("sha256", "frame"))
        return commit.CommitRecord(version, found["layout"].decode(), *extent, *sums)

    vars(commit)["decode"] = decode
    vars(located)["sha256"] = _Anything
    return Adapter()


def ignores_crc32() -> Adapter:
    """Reads every record as if its crc32 were right."""
    found = commit.decode

    def decode(line: bytes, major: int) -> commit.CommitRecord:
        body, mark, _ = line.rpartition(b"crc32=")
        return found(body + b"crc32=%08x\n" % zlib.crc32(body) if mark else line, major)

    vars(commit)["decode"] = decode
    return Adapter()


class _OfAnySize(bytes):
    """A frame digest that is as long as is wanted."""

    def __len__(self) -> int:
        return 32


def ignores_frame_size() -> Adapter:
    found = commit.decode
    vars(commit)["decode"] = lambda line, major: _with_any_frame(found(line, major))
    return Adapter()


def _with_any_frame(record: commit.CommitRecord) -> commit.CommitRecord:
    return record._replace(frame=_OfAnySize(record.frame))


def follows_links() -> Adapter:
    vars(disk)["os"] = _Following()
    return Adapter()


class _Following:
    """The module `os`, but its links are followed."""

    O_NOFOLLOW = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class _Padding:
    """NumPy, but its zeros are none."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        padded = np.zeros(shape, dtype)
        padded.reshape(-1).view("u1")[...] = 0xEE
        return padded


def pads_wrongly() -> Adapter:
    vars(pieces)["np"] = _Padding()
    return Adapter()


def no_flush() -> Adapter:
    for name in ("flush", "flush_directory"):
        setattr(RecordingDisk, name, lambda *_: None)
    return Adapter()


def forgets_provenance() -> Adapter:
    vars(apply)["further_keys"] = lambda *_: {}
    return Adapter()


class _Kept(dict[int, bytes]):
    """Pages that are there again whenever they are asked for."""

    met: set[int]

    def pop(self, key: int, *default: Any) -> Any:
        self.met.add(key)
        return self.get(key, *default)

    def __bool__(self) -> bool:
        return not self.met >= self.keys()


def expands_pages_twice() -> Adapter:
    def kept(*values: Any) -> Any:
        made = _Kept(*values)
        made.met = set()
        return made

    vars(tree_pages)["dict"] = kept
    return Adapter()


def trusts_pages(*objects: str) -> Adapter:
    """Does not check the pages in these objects."""
    checked = pages.Pages._checked

    def unchecked(self: pages.Pages, number: int, raw: memoryview) -> bytes:
        return bytes(raw) if self.object in objects else checked(self, number, raw)

    setattr(pages.Pages, "_checked", unchecked)  # noqa: B010
    return Adapter()


def forgets_what_pages_show_together() -> Adapter:
    vars(verification)["_check_pages"] = lambda *_: ()
    return Adapter()


def with_parts(step: int) -> Adapter:
    """Takes all chunks of a page for such of the first part, or of one after another: no look at the column `part`."""

    def parts(self: Any, at: int, document: Any, table: Any) -> Any:
        return np.arange(len(table.length)) * step % len(self.objects) if self._has_parts else None

    setattr(tensor_pages.TensorPages, "_parts_of", parts)  # noqa: B010
    return Adapter()


def ignores_packs() -> Adapter:
    """Does not look whether chunks lie within their packs, and apart."""
    setattr(ChunkTable, "check_extents", lambda *_: None)  # noqa: B010
    return Adapter()


def takes_parts_as_they_are() -> Adapter:
    def packs(parts: list[Any], layout: str, _: Any) -> Any:
        found = (tensor_pages.PagedObject(one["object"], one["size"], one["size"], one["frame"]) for one in parts)
        return list(found) if layout == "packed" else None

    vars(paged_manifest)["_packs"] = packs
    return Adapter()


def takes_pages_from_anywhere() -> Adapter:
    """Takes `pages.bin` for pages from its first byte on, whatever is said of that."""
    decoded = pages.decode_pages

    def decode(document: Any, layout: str, *more: Any) -> Any:
        return decoded(document if layout == "file" else {**document, "offset": 0}, layout, *more)

    vars(paged_manifest)["decode_pages"] = decode
    return Adapter()


def forgets_packs_without_tables() -> Adapter:
    frame = packed._frame
    vars(packed)["_frame"] = lambda storage, pack, table: () if table is None else frame(storage, pack, table)
    return Adapter()


def forgets_the_end_of_pages() -> Adapter:
    vars(directory)["pages_frame"] = lambda *_: ()
    return Adapter()


def forgets_frames_of_paged_packs() -> Adapter:
    found = packed.frames

    def frames(storage: Any, located: Any, index: Any) -> Any:
        return (one for one in found(storage, located, index) if not index.manifest.pages or "packs/" not in one.object)

    vars(packed)["frames"] = frames
    return Adapter()


def takes_any_base() -> Adapter:
    """The first that it is given."""
    found = bases.Bases._find

    def find(self: bases.Bases, _: bytes, checkpoint: Any) -> Any:
        return found(self, self._sha256_of(self.candidates[0]), checkpoint)

    setattr(bases.Bases, "_find", find)  # noqa: B010
    return Adapter()


def ignores_sources() -> Adapter:
    """Does not look whether a tensor of a patch is like the one that it is made of."""
    vars(bases)["check_sources"] = lambda *_: None
    return Adapter()


def takes_differences_for_elements() -> Adapter:
    def alone(out: Any, different: Any) -> None:
        out[...] = 0
        xor(out, different)

    vars(patched)["xor"] = alone
    return Adapter()


def believes_bases() -> Adapter:
    """Verifies a patch, and nothing that is none."""
    check = blocks.BlockReader.check

    def of_patches(self: blocks.BlockReader, *found: Any) -> None:
        if self.manifest.patch is not None:
            check(self, *found)

    setattr(blocks.BlockReader, "check", of_patches)  # noqa: B010
    return Adapter()


def ignores_forms() -> Adapter:
    """Takes a patch for a checkpoint that has all of its tensors."""
    setattr(StoredCheckpoint, "_fetcher", lambda self: Fetcher(self.blocks))  # noqa: B010
    return Adapter()


WRONG: dict[str, Any] = {
    "accepts-everything": AcceptsEverything,
    "refuses-everything": RefusesEverything,
    "ignores-digests": ignores_digests,
    "ignores-commit-record": ignores_commit_record,
    "ignores-crc32": ignores_crc32,
    "ignores-frame-size": ignores_frame_size,
    "follows-links": follows_links,
    "trusts-zip-directory": TrustsZipDirectory,
    "swaps-endianness": SwapsEndianness,
    "drops-aliases": DropsAliases,
    "pads-wrongly": pads_wrongly,
    "reads-whole-file": ReadsWholeFile,
    "decodes-float-text": DecodesFloatText,
    "forgets-tuples": ForgetsTuples,
    "sorts-dicts": SortsDicts,
    "names-wrong-tensor": NamesWrongTensor,
    "no-flush": no_flush,
    "leaves-temporary": LeavesTemporary,
    "overwrites": Overwrites,
    "clock-in-file": ClockInFile,
    "crashes": Crashes,
    "prints-junk": PrintsJunk,
    "lies-about-features": LiesAboutFeatures,
    "ignores-tensor-order": IgnoresTensorOrder,
    "migrates-in-place": MigratesInPlace,
    "upgrades-by-copying": UpgradesByCopying,
    "forgets-provenance": forgets_provenance,
    "expands-pages-twice": expands_pages_twice,
    "trusts-pages": partial(trusts_pages, ""),
    "forgets-what-pages-show-together": forgets_what_pages_show_together,
    "trusts-pages-of-directories": partial(trusts_pages, "pages.bin"),
    "takes-first-part": partial(with_parts, 0),
    "counts-parts-by-rows": partial(with_parts, 1),
    "ignores-packs": ignores_packs,
    "takes-parts-as-they-are": takes_parts_as_they_are,
    "takes-pages-from-anywhere": takes_pages_from_anywhere,
    "forgets-packs-without-tables": forgets_packs_without_tables,
    "forgets-the-end-of-pages": forgets_the_end_of_pages,
    "forgets-frames-of-paged-packs": forgets_frames_of_paged_packs,
    "takes-any-base": takes_any_base,
    "ignores-sources": ignores_sources,
    "takes-differences-for-elements": takes_differences_for_elements,
    "believes-bases": believes_bases,
    "ignores-forms": ignores_forms,
}

if __name__ == "__main__":
    WRONG[sys.argv[1]]().serve()
