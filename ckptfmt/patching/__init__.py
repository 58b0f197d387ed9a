"""Patches: what is different between two checkpoints, as a checkpoint of its own (SPEC.md section 7.4)."""
