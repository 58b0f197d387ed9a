"""A model loader for vLLM, which finds it by itself where both are installed:

vllm serve folder --load-format ckptfmt  # config.json, tokenizer files and model.ckpt
"""

from __future__ import annotations

from typing import Any

from .weights import weights, weights_at

LOAD_FORMAT = "ckptfmt"


def register() -> None:
    """Make the load format known to vLLM; an entry point of `vllm.general_plugins`, which each process calls.

    `--model-loader-extra-config '{"verify": false}'` leaves out the verification, and `{"prefix": "model"}` takes a
    part of a checkpoint, as in `ckptfmt_torch.weights.weights`.
    """
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    @register_model_loader(LOAD_FORMAT)
    class CkptfmtModelLoader(BaseModelLoader):  # type: ignore[misc]
        """Gives a model the tensors of a checkpoint, one after another."""

        def download_model(self, model_config: Any) -> None:
            weights_at(_place(model_config))  # it must be on this machine, or a URL

        def load_weights(self, model: Any, model_config: Any) -> None:
            options = self.load_config.model_loader_extra_config or {}
            model.load_weights(weights(_place(model_config), **options))


def _place(model_config: Any) -> str:
    """Where the weights are; the configuration may be elsewhere."""
    return str(getattr(model_config, "model_weights", None) or model_config.model)
