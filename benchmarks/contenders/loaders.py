"""Loaders of model weights: fastsafetensors and run:ai's streamer, which read safetensors files, and tensorizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.contenders.contender import ONLY_LOADS
from benchmarks.contenders.safetensors import SafetensorsTorch
from benchmarks.contenders.torch import TorchContender


class FastSafetensors(SafetensorsTorch):
    """Without GPUDirect Storage, onto the CPU."""

    name = "fastsafetensors"
    peer = ""
    note = '`SafeTensorsFileLoader(None, "cpu", nogds=True)` with its 16 threads; tensors share one buffer. Only loads.'
    requires = ("fastsafetensors", "safetensors", "torch")
    faces = frozenset()
    slice = None
    omits = ONLY_LOADS

    def load(self, path: Path) -> Mapping[str, Any]:
        from fastsafetensors import SafeTensorsFileLoader

        loader = SafeTensorsFileLoader(None, "cpu", nogds=True)
        loader.add_filenames({0: [str(path)]})
        buffers = loader.copy_files_to_device()
        tree = {name: buffers.get_tensor(name) for name in loader.get_keys()}
        # Its memory lives as long as these: closing them gives it back, tensors or not.
        self._kept = (loader, buffers)
        return tree


class RunAi(SafetensorsTorch):
    """run:ai model streamer."""

    name = "run:ai streamer"
    peer = ""
    note = "`SafetensorsStreamer.stream_file`, defaults (16 threads, tensors owned by the caller). Only loads."
    requires = ("runai_model_streamer", "safetensors", "torch")
    faces = frozenset()
    slice = None
    omits = ONLY_LOADS

    def load(self, path: Path) -> Mapping[str, Any]:
        from runai_model_streamer import SafetensorsStreamer

        with SafetensorsStreamer() as streamer:
            streamer.stream_file(str(path))
            return dict(streamer.get_tensors())


class Tensorizer(TorchContender):
    """CoreWeave's tensorizer, as fast as it goes."""

    name = "tensorizer"
    peer = "tensorizer"
    note = "`TensorSerializer.write_state_dict`, `TensorDeserializer` with `num_readers` 2; nothing is verified."
    requires = ("tensorizer", "torch")
    slow = True
    verifies = False

    def save(self, path: Path, tree: Any) -> None:
        from tensorizer import TensorSerializer

        serializer = TensorSerializer(path)
        serializer.write_state_dict(tree)
        serializer.close()

    def load(self, path: Path) -> Mapping[str, Any]:
        from tensorizer import TensorDeserializer

        deserializer = TensorDeserializer(path, device="cpu", num_readers=2, verify_hash=self.verifies)
        # Its reader maps the tensors of one buffer; closing it leaves them valid.
        tree = {name: deserializer[name] for name in deserializer}
        deserializer.close()
        return tree


class TensorizerVerified(Tensorizer):
    """With its own verification."""

    name = "tensorizer verified"
    note = "`verify_hash=True`: the sha256 of each tensor. Only its loads are new."
    omits = ONLY_LOADS
    verifies = True
