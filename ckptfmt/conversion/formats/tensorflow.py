"""TensorFlow's checkpoints, without TensorFlow: tensor bundles, alone, in a folder with a `checkpoint` that names the
latest, and in a SavedModel.

Those of TensorFlow 2 are trees of the objects whose variables they hold, the keys as stored being metadata; those of
TensorFlow 1 have flat names. Of a SavedModel the variables are read, and its graph is not.
"""

from __future__ import annotations

import os

from ...errors import CkptError, fault
from ...format.limits import FACTOR, VALUES
from ...format.names import path_label, path_text
from .. import object_graph
from ..entries import check_inside
from ..fit import nested
from ..folders import index_of
from ..probe import Probe
from ..sorted_table import FOOTER, MAGIC
from ..source import OpenedSource
from ..tensor_bundle import INDEX, TensorBundle

KEYS = "tensorflow.keys"  # metadata: path text -> the key of a tensor as it is stored
NAMES = "tensorflow.names"  # metadata: path text -> the name of a variable
SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
VARIABLES = os.path.join("variables", f"variables{INDEX}")


def looks_like(probe: Probe) -> bool:
    if probe.is_directory:
        return not probe.entries.isdisjoint(SAVED_MODEL)
    if _index_of_shard(probe.path) is not None:
        return True
    return probe.size >= FOOTER and probe.read(probe.size - len(MAGIC), len(MAGIC)) == MAGIC


def _index_of_shard(path: str) -> str | None:
    """The index beside a file that holds the bytes of tensors, and nothing that says so but its name."""
    index = index_of(path)
    return index if index is not None and index.endswith(INDEX) and os.path.isfile(index) else None


def read(path: str) -> OpenedSource:
    bundle = TensorBundle(_index(path))
    tensors = dict(bundle.tensors())
    bundle.left_out.check(tensors)
    graph = tensors.pop(object_graph.KEY, None)
    size = bundle.size
    if not tensors and os.path.isdir(path):
        raise _without_variables(path)
    if graph is None:
        losses = tuple(loss._replace(path=path_label((loss.path,))) for loss in bundle.losses)
        return OpenedSource(tensors, losses=losses, size=size)
    said = object_graph.full_names(graph.encode() if isinstance(graph, str) else graph)
    keys = {**tensors, **dict.fromkeys(loss.path for loss in bundle.losses)}
    places = object_graph.paths(keys.keys(), said, VALUES + FACTOR * size)
    tree = nested(((places[key], tensor) for key, tensor in tensors.items()), len(tensors))
    metadata = {
        KEYS: {path_text(places[key]): key for key in tensors},
        NAMES: {path_text(places[key]): said[key] for key in tensors if key in said},
    }
    return OpenedSource(
        tree, metadata, tuple(loss._replace(path=path_label(places[loss.path])) for loss in bundle.losses), size=size
    )


def _index(path: str) -> str:
    """The index of the checkpoint at a path; raises `unsupported-source` for a SavedModel without variables."""
    if not os.path.isdir(path):
        return _index_of_shard(path) or path
    index = os.path.join(path, VARIABLES)
    if not os.path.lexists(index):
        raise _without_variables(path)
    check_inside(index, path)
    return index


def _without_variables(path: str) -> CkptError:
    message = "this SavedModel has no variables: what its graph computes with are constants in it"
    return fault("unsupported-source", message, path=path)
