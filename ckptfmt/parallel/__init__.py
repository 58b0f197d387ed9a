"""Many processes, one checkpoint: every process writes the parts of tensors that it holds into packs of its own, and
rank 0 merges what they say about them and commits (SPEC.md sections 7, 8 and 11, layout `packed`).

- `coordinator`: how processes talk, in rounds in which every rank sends a message and rank 0 answers each,
- `files`, `mpi`: coordinators over a shared directory and over MPI; those over torch.distributed and jax.distributed
  stand in the adapters,
- `proposal`: what a rank has to save; `plan`: who writes which chunk; both pure,
- `save`: the rounds of a save.
"""
