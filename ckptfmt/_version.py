"""The version of the package, and that of the format that it writes."""

__version__ = "1.0.0"
FORMAT = (1, 0)  # (major, minor) of SPEC.md
