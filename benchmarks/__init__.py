"""ckptfmt beside its peers: the same states, in one interleaved run, as ratios."""
