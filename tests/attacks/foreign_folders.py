"""Folders of other formats: links that lead out, pipes, circles, and metadata that claim what is not there, of Zarr 2
and 3, Orbax, torch's distributed checkpoints, DeepSpeed and indexes. `--all`: every mutant.

What a library is given are only files that it wrote itself; mutants are of the JSON that is checked before.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import safetensors.numpy
import tensorstore  # noqa: F401 - whose memory is not what is measured; used, it forbids to fork
import zarr
from attack import AS_SOURCE, attempt, folder
from mutants import asked, mutants


def zarr_folder(path: Path, zarr_format: int) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    group.create_array("a", data=np.arange(6.0).reshape(2, 3), chunks=(1, 3))
    group.create_group("g").create_array("b", data=np.arange(4))
    if zarr_format == 3:
        group.create_array("s", data=np.arange(8), chunks=(2,), shards=(4,))


def orbax_folder(path: Path, zarr_format: int) -> None:
    """What Orbax writes, without OCDBT."""
    path.mkdir()
    key = {"key": "w", "key_type": 2}
    entry = {"key_metadata": [key], "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False}}
    document = {"tree_metadata": {"('w',)": entry}, "use_ocdbt": False, "use_zarr3": zarr_format == 3}
    (path / "_METADATA").write_text(json.dumps(document))
    zarr.create_array(path / "w", data=np.ones((4, 2), np.float32), zarr_format=zarr_format)  # type: ignore[arg-type]


def dcp_folder(path: Path) -> None:
    import torch
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"a": torch.ones(2), "n": 5}, checkpoint_id=path, no_dist=True)


def deepspeed_folder(path: Path) -> None:
    """One that DeepSpeed wrote."""
    shutil.copytree(Path(__file__).parent.parent / "data/deepspeed/zero3", path)


def index_folder(path: Path) -> None:
    path.mkdir()
    safetensors.numpy.save_file({"a": np.ones(3)}, path / "x.safetensors")
    document = {"metadata": {"total_size": 24}, "weight_map": {"a": "x.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(document))


FOLDERS: dict[str, Callable[[Path], None]] = {
    "zarr2": lambda path: zarr_folder(path, 2),
    "zarr3": lambda path: zarr_folder(path, 3),
    "orbax2": lambda path: orbax_folder(path, 2),
    "orbax3": lambda path: orbax_folder(path, 3),
    **({"dcp": dcp_folder} if find_spec("torch") else {}),
    "deepspeed": deepspeed_folder,
    "index": index_folder,
}


def strange(path: Path) -> Iterator[str]:
    """Put a link, a pipe or a folder in the place of each entry, and into each folder."""
    for entry in sorted(path.rglob("*")):
        name = entry.relative_to(path)
        away = path.parent / "away"
        shutil.move(entry, away)
        for title, put in {
            "a link that leads out": lambda entry=entry, away=away: entry.symlink_to(away),
            "a pipe": lambda entry=entry: os.mkfifo(entry),
            "a link into a device": lambda entry=entry: entry.symlink_to("/dev/zero"),
            "a link to itself": lambda entry=entry: entry.symlink_to(entry),
            "a link to the folder": lambda entry=entry, path=path: entry.symlink_to(path),
            "a folder": lambda entry=entry: entry.mkdir(),
        }.items():
            put()
            yield f"{title} in the place of {name}"
            entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.move(away, entry)
    for parent in [path, *sorted(entry for entry in path.rglob("*") if entry.is_dir())]:
        for name in ("circle", "other"):
            (parent / name).symlink_to(parent)
        yield f"two links in a circle in {parent.relative_to(path)}"
        for name in ("circle", "other"):
            (parent / name).unlink()
        os.mkfifo(parent / "pipe")
        yield f"a pipe more in {parent.relative_to(path)}"
        (parent / "pipe").unlink()


# documents of which no other tries the like, and values that are unlike each other
DOCUMENTS = {
    "zarr2": (".zgroup", "a/.zarray"),
    "zarr3": ("zarr.json", "s/zarr.json"),
    "orbax3": ("_METADATA", "w/zarr.json"),
    "index": ("model.safetensors.index.json",),
}
HOSTILE = ("-1", "1.5", "2^62", "none", "long text", "huge list", "many axes", "deep")


def changed(path: Path, names: tuple[str, ...]) -> Iterator[str]:
    """Mutate JSON documents."""
    for file in (path / name for name in names):
        raw = file.read_text()
        for title, document in mutants(json.loads(raw), HOSTILE):
            file.write_text(json.dumps(document))
            yield f"{file.relative_to(path)}: {title}"
        file.write_text(raw)


def bombs(path: Path, every: int) -> Iterator[str]:
    """Chunks of zeros, of the size that they should have and far larger ones; none is made but those that are asked
    for."""
    codecs = (zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec(), zarr.codecs.BloscCodec())
    for size, codec, lies in asked(product((1 << 20, 8 << 20, 256 << 20), codecs, (False, True)), every):
        shutil.rmtree(path)
        array = zarr.create_array(
            path, shape=(size,), dtype="u1", chunks=(size,), compressors=codec, config={"write_empty_chunks": True}
        )
        array[...] = 1
        if lies:
            file = path / "zarr.json"
            document = json.loads(file.read_text())
            document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"] = [1000], [1000]
            file.write_text(json.dumps(document))
        yield f"{size:,} equal bytes in a chunk of {'1,000 of ' * lies}{type(codec).__name__}"


def main() -> None:
    for name, make in FOLDERS.items():
        with folder() as here:
            path = here / "source"
            make(path)
            attempt(f"{name} as it is", path, "opened", actions=AS_SOURCE)
            for made, every in ((strange(path), 29), (changed(path, DOCUMENTS.get(name, ())), 67)):
                for title in asked(made, every):
                    attempt(f"{name}, {title}", path, actions=AS_SOURCE)
    with folder() as here:
        (here / "source").mkdir()
        for title in bombs(here / "source", 5):
            attempt(title, here / "source", actions=AS_SOURCE)


if __name__ == "__main__":
    main()
