"""The format as SPEC.md describes it, one noun a module: values to bytes and back. Nothing here opens a file."""
