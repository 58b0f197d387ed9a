#!/usr/bin/env bash
# model-signing 1.1.1, sigstore 4.5.1, Python 3.11 or later; seen on 2026-11-30.
# `pip install model-signing`, and it cannot be imported: it uses OpenSSL (pyOpenSSL), which it does not require itself.
# sigstore brought it until it had no use for it any more. With `pip install pyOpenSSL` all works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet model-signing==1.1.1 sigstore==4.5.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import requires

try:
    import model_signing
except ModuleNotFoundError as error:
    print(type(error).__name__, error)
    assert error.name == "OpenSSL", error
else:
    raise SystemExit("it can be imported")
assert not any("openssl" in one.lower() for name in ("model-signing", "sigstore") for one in requires(name))
PYTHON
"$folder/venv/bin/pip" install --quiet pyOpenSSL
"$folder/venv/bin/python" -W ignore -c "import model_signing"
