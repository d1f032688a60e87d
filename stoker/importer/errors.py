"""What ends an import."""


class CannotImport(Exception):
    """Nothing can be written: what, where, why, and what to do."""
