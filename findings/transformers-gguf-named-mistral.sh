#!/usr/bin/env bash
# transformers 5.24.0, gguf 0.19.0: a GGUF of the architecture llama (which llama.cpp has for Mistral, too) is loaded,
# but for one whose `general.name` is "mistral": transformers then asks the table of gguf for an architecture "mistral",
# which it does not have. It looks for the word among the names in a list, so that no longer name is met by it.
#
# Output seen:
#   mistral-7b loaded
#   mistral NotImplementedError: Unknown gguf model_type: mistral in gguf-py.
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.13.0 gguf==0.19.0 numpy==2.4.6
cd "$folder"

HF_HUB_OFFLINE=1 venv/bin/python -W ignore - 2>/dev/null <<'PROGRAM'
import sys

import numpy as np
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM

SHAPES = {"token_embd": (64, 32), "output": (64, 32), "output_norm": (32,)}
SHAPES |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
SHAPES |= {f"blk.0.{name}": shape for name, shape in (("attn_norm", (32,)), ("ffn_norm", (32,)))}
SHAPES |= {"blk.0.ffn_gate": (48, 32), "blk.0.ffn_up": (48, 32), "blk.0.ffn_down": (32, 48)}


def outcome(name):
    writer = GGUFWriter("x.gguf", "llama")
    writer.add_name(name)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(64)
    for key, shape in SHAPES.items():
        writer.add_tensor(f"{key}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    try:
        AutoModelForCausalLM.from_pretrained(".", gguf_file="x.gguf")
    except NotImplementedError as error:
        return f"NotImplementedError: {str(error).partition('.')[0]}."
    return "loaded"


found = {name: outcome(name) for name in ("mistral-7b", "mistral")}
for name, told in found.items():
    print(name, told)
sys.exit(found != {"mistral-7b": "loaded", "mistral": "NotImplementedError: Unknown gguf model_type: mistral in gguf-py."})
PROGRAM
