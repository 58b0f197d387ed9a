"""`python -m benchmarks.frameworks`: the adapters beside the NumPy path, and beside what their frameworks have
themselves."""
