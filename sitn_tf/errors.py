"""Errors of all three packages."""


class InputError(ValueError):
    """An error that the caller can mend: one line naming the thing and the remedy."""
