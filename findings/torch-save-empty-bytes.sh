#!/usr/bin/env bash
# torch 2.13.0: what torch.save writes of empty bytes, torch.load refuses.
#
# torch.save({"a": b""}) pickles by protocol 2, which has no bytes: b"x" becomes _codecs.encode("x", "latin1"), which the
# default torch.load (weights_only=True) allows, but b"" becomes a call of the builtin `bytes`, which it does not:
# one empty bytes value makes a whole file unreadable by default.
#
# Seen: {'a': b'x'} comes back; {'a': b''} raises UnpicklingError: Unsupported global: GLOBAL bytes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" numpy --extra-index-url https://download.pytorch.org/whl/cpu
cd "$folder"
venv/bin/python - <<'PYTHON'
import pickle, sys, torch

torch.save({"a": b"x"}, "some.pt")
assert torch.load("some.pt") == {"a": b"x"}
torch.save({"a": b""}, "empty.pt")
assert torch.load("empty.pt", weights_only=False) == {"a": b""}
try:
    torch.load("empty.pt")
except pickle.UnpicklingError as error:
    assert "GLOBAL bytes" in str(error), error
    print("torch", torch.__version__, "refuses the empty bytes that it wrote")
else:
    sys.exit("torch now reads them")
PYTHON
