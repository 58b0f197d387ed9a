"""The version of the package; that of the format is `ckptfmt.format.manifest.FORMAT`."""

__version__ = "1.0.0"
