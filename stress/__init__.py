"""Long runs against the promises of docs/promises.md: `python -m stress`."""
