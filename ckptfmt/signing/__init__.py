"""Signatures of checkpoints (docs/spec/signatures.md): who vouches for one, of whose manifest they are."""
