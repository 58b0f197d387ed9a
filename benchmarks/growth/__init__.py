"""How times grow with the number of tensors, and with their bytes: `python -m benchmarks.growth`."""
