"""Which of the files and folders in a folder is its checkpoint, as libraries and people lay them out.

A folder that is a checkpoint itself, as those of Orbax are, is that. Else its files count, and where it has none of
weights the folders below it. Files that are called alike (`model.safetensors`, `pytorch_model.bin`) are forms of the
same weights, of which the first in `FORMS` that can be read is taken, as transformers does. Whatever else lies beside
it is passed over, and named. One checkpoint is taken; of several none is, but of the steps of a run of Orbax or flax
the latest, as these take it when none is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator

from ..errors import CkptError, fault
from .entries import check_inside, open_file
from .probe import CheckpointPlace
from .shards import numbered

BUNDLE = ".index"  # of TensorFlow
LATEST = "checkpoint"  # a file in which TensorFlow says which of the checkpoints in a folder is the latest
_LATEST_SAID = re.compile(rb'^\s*model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE).search
_LATEST_BYTES = 1 << 20  # most of such a file, which names older ones, too
# files that hold tensors, by the index that stands for them
_SHARDS = (
    (re.compile(r"(.+)\.data-[0-9]{5}-of-[0-9]{5}").fullmatch, BUNDLE),
    (re.compile(r"(.+)_[0-9]{5}\.weights\.h5").fullmatch, ".weights.json"),
)
# of the same weights, from what is taken first
FORMS = (
    *(".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"),
    *(".msgpack", ".keras", ".weights.json", ".h5", ".hdf5", ".npz", ".gguf", ".pt2", ".jit", ".ptl", ".torchscript"),
    *(".eqx", ".nemo", ".pth.tar", ".onnx", ".tflite", ".mlmodel", ".pdparams", BUNDLE),
)
# of weights or of what lies beside them, as preprocessors do: where there is nothing of the forms above
OTHER_FORMS = (
    *(".skops", ".joblib", ".pkl", ".pickle", ".npy", ".zip", ".tar", ".tgz"),
    *(".gz", ".zst", ".xz", ".bz2", ".lz4"),
)
ALL_FORMS = (*FORMS, *OTHER_FORMS)
INDEX = ".index.json"
# names that mean the same weights, written by another framework
ALIASES = {"pytorch_model": "model", "flax_model": "model", "tf_model": "model"}
# what transformers, diffusers and peft call the weights of a folder
WEIGHTS = {"model", "diffusion_pytorch_model", "adapter_model", "pytorch_lora_weights"}
# what lies beside weights, as a Trainer and accelerate write it: the state of a run
_BESIDE = re.compile(r"(optimizer|scheduler|scaler|sampler|rng_state|random_states|training_args|dl_state_dict)").match
OTHERS, LAST = 2, 4  # the ranks of other forms, after what lies in folders below, and of these
DEPTH = 3  # folders below each other that are looked into: models--a--b/snapshots/REVISION
LOOKED_INTO = 256  # folders in all
SHOWN = 8  # most checkpoints named in an error

OF_RUNS = {"orbax", "flax"}  # formats whose libraries take the latest step of a run
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a step that Orbax writes, or was writing
_STEP = re.compile(r"(?P<prefix>.*?)(?P<step>[0-9]+)").fullmatch
_OF_FLAX = re.compile(r"checkpoint_[0-9]+").fullmatch  # flax.training.checkpoints; a file without a suffix

FormatOf = Callable[[str], str]  # the name of the format of what is at a path; raises `unknown-format`


def place_in(folder: str, format_of: FormatOf) -> CheckpointPlace:
    """The checkpoint in a folder; raises `ambiguous-source` where there are several, and `unknown-format` where there
    is none, or what is wrong with the one file that would be it."""
    search = _Search(format_of)
    found = _latest(search.places(folder, DEPTH))
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(f"{os.path.relpath(place.path, folder)} ({place.format})" for place in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        message = f"this folder has {len(found)} checkpoints, of which none comes first: {named}{more}"
        advice = f"Give the path of one, such as {found[-1].path}"
        raise fault("ambiguous-source", message, path=folder, advice=advice)
    if search.wrong is not None:
        raise search.wrong
    names = sorted(os.listdir(folder))
    holds = f"it holds {', '.join(map(repr, names[:SHOWN]))}" if names else "it is empty"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise fault("unknown-format", f"this folder has no checkpoint of a known format in it; {holds}{more}", path=folder)


def _latest(places: list[CheckpointPlace]) -> list[CheckpointPlace]:
    """Of several steps of one run the latest, where it is of a library that takes it; else all places."""
    finished = [place for place in places if UNFINISHED not in place.path]
    steps = [(_STEP(os.path.basename(place.path)), place) for place in finished]
    runs = {(place.format, os.path.dirname(place.path), found and found["prefix"]) for found, place in steps}
    if len(runs) != 1 or next(iter(runs))[0] not in OF_RUNS or len(places) < 2:
        return places
    numbers = [(int(found["step"]), place) for found, place in steps if found is not None]
    if len(numbers) < len(steps):
        return places
    latest = max(numbers, key=lambda pair: pair[0])[1]
    others = [os.path.basename(place.path) for place in places if place is not latest]
    return [latest._replace(passed_over=(*others, *latest.passed_over))]


def completed(path: str) -> str:
    """A path; where nothing lies there, and TensorFlow would call a checkpoint so, that of its index."""
    index = f"{path}{BUNDLE}"
    return index if not os.path.lexists(path) and os.path.isfile(index) else path


class _Search:
    def __init__(self, format_of: FormatOf) -> None:
        self.format_of = format_of
        self.left = LOOKED_INTO
        self.wrong: CkptError | OSError | None = None  # with what should have been readable, first

    def places(self, folder: str, depth: int) -> list[CheckpointPlace]:
        """All checkpoints that come first in a folder."""
        self.left -= 1
        try:
            return [CheckpointPlace(folder, self.format_of(folder))]
        except CkptError as error:
            if error.code != "unknown-format":
                raise
        names = sorted((name for name in os.listdir(folder) if not name.startswith(".")), key=_natural)
        families = list(_families(self._without_older(folder, names)))
        before = self.wrong
        for rank in range(LAST + 1):
            if rank == OTHERS and depth and self.wrong is before and (found := self._below(folder, names, depth)):
                return found
            tried = [self._first(folder, forms) for rank_of, forms in families if rank_of == rank]
            if found := [place for place in tried if place is not None]:
                taken = {os.path.basename(place.path) for place in found}
                beside = [name for _, forms in families for name in forms if name not in taken]
                beside += _others(folder, names, {*beside, *taken})
                return [place._replace(passed_over=tuple(beside)) for place in found]
        return []

    def _without_older(self, folder: str, names: list[str]) -> list[str]:
        """Names without the checkpoints of TensorFlow that are not the latest, where a file says which is."""
        latest = _latest_bundle(folder, names)
        if latest is not None and latest not in names:
            message = f"{LATEST!r} names {latest.removesuffix(BUNDLE)}, which is not in the folder"
            self.wrong = self.wrong or fault("bad-source", message, path=folder, advice="Give the path of another one")
        return [name for name in names if latest in (None, name) or not name.endswith(BUNDLE)]

    def _first(self, folder: str, forms: list[str]) -> CheckpointPlace | None:
        """The first of some forms that can be read."""
        for name in forms:
            path = os.path.join(folder, name)
            try:
                if os.path.isdir(path):
                    continue
                check_inside(path, folder)
                return CheckpointPlace(path, self.format_of(path))
            except CkptError as error:
                self.wrong = self.wrong or error
        return None

    def _below(self, folder: str, names: list[str], depth: int) -> list[CheckpointPlace]:
        """All in the folders below; those of the state of a run count only where there are no others."""
        for is_beside in (False, True):
            wanted = [name for name in names if bool(_BESIDE(name)) is is_beside]
            if found := [place for name in wanted for place in self._in(os.path.join(folder, name), depth)]:
                return found
        return []

    def _in(self, path: str, depth: int) -> list[CheckpointPlace]:
        """All in a folder below."""
        if not self.left or not os.path.isdir(path) or os.path.islink(path):
            return []
        try:
            return self.places(path, depth - 1)
        except (CkptError, OSError) as error:  # such as one that may not be read
            self.wrong = self.wrong or error
            return []


def has_weights(names: list[str]) -> bool:
    """Whether there are files of weights among the names of a folder, and not of the state of a run alone."""
    return any(rank < LAST for rank, _ in _families(names))


def _families(names: list[str]) -> Iterator[tuple[int, list[str]]]:
    """File names by the weights that they hold: how far from what people look for, and the forms, the first before the
    others. Files that an index names stand for nothing by themselves, nor does a part of a GGUF model but the first."""
    families: dict[str, list[str]] = {}
    for name in names:
        form = _form(name)
        if form is None:
            continue
        stem = name.removesuffix(form)
        if not is_part(name, names):
            families.setdefault(ALIASES.get(stem, stem), []).append(name)
    for family, forms in families.items():
        of_others = 0 if any(name.endswith(FORMS) or _OF_FLAX(name) for name in forms) else OTHERS
        rank = LAST if _BESIDE(family) else of_others + (family not in WEIGHTS)
        yield rank, sorted(forms, key=_order)


def _form(name: str) -> str | None:
    """The suffix of a name that looks like weights, which those of flax lack; None if it does not."""
    found = next((form for form in reversed(ALL_FORMS) if name.endswith(form) and name != form), None)
    return "" if found is None and _OF_FLAX(name) else found


def index_of(name: str) -> str | None:
    """The index, if there is one, that stands for a file of TensorFlow or Keras which holds some of the tensors."""
    return next((f"{shard[1]}{index}" for shard_of, index in _SHARDS if (shard := shard_of(name)) is not None), None)


def is_part(name: str, names: Collection[str]) -> bool:
    """Whether an index among the names stands for a file, or the first part of its GGUF model."""
    if (index := index_of(name)) is not None:
        return index in names
    part = numbered(name)
    if part is None:
        return False
    whole, form = part.others(1).partition("-00001-of-")[0], os.path.splitext(name)[1]
    return f"{whole}{form}{INDEX}" in names or (form == ".gguf" and part.others(1) in names and part.number != 1)


def _latest_bundle(folder: str, names: list[str]) -> str | None:
    """The name of the index that a folder of TensorFlow says is that of its latest checkpoint; None if it does not."""
    path = os.path.join(folder, LATEST)
    if LATEST not in names or not os.path.isfile(path):
        return None
    with open(open_file(path, folder), "rb") as file:
        found = _LATEST_SAID(file.read(_LATEST_BYTES))
    if found is None:
        return None
    said = re.sub(rb"\\(.)", rb"\1", found[1]).decode("utf-8", "replace")
    return os.path.basename(said) + BUNDLE  # a folder may have been moved since


def _others(folder: str, names: list[str], known: set[str]) -> Iterator[str]:
    """What lies in a folder beside weights and the state of a run: configurations, tokenizers, other folders ("name/").
    Parts that an index stands for are not named, nor what says which is the latest."""
    if any(name.endswith(BUNDLE) for name in names):
        known = {*known, LATEST}
    for name in names:
        if name not in known and not is_part(name, names):
            yield f"{name}/" if os.path.isdir(os.path.join(folder, name)) else name


def _order(name: str) -> int:
    return max((number for number, form in enumerate(ALL_FORMS) if name.endswith(form)), default=len(ALL_FORMS))


def _natural(name: str) -> list[tuple[int, str]]:
    """By which `checkpoint-500` comes before `checkpoint-1000`."""
    return [(int(part[:30]), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", name)]
