"""A reader of checkpoints in plain Python, the companion of SPEC.md (reader.py), and its driver (protocol.py)."""
