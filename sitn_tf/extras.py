"""Packages that only some commands need, and the extra of setup.py that brings them."""

import importlib

from sitn_tf.errors import InputError


def check(who: str, extra: str, *modules: str) -> None:
    """Raises InputError, naming the extra, where one of the modules can't be imported.

    Args:
      who: needs them, as the error says.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(f"{who} needs {error.name}: pip install 'sitn_tf[{extra}]'") from error
