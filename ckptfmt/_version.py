"""The version of the package, and that of the format that it writes."""

__version__ = "1.1.0"
FORMAT = (1, 0)  # (major, minor) of SPEC.md: of what needs no later one
NEWEST_FORMAT = (1, 2)  # of what does
