"""One module for each format of other tools, and one for checkpoints of this format: see `table.FORMATS`."""
