"""The commit of this code: of an installed checkout, where git and its work tree are there."""

import functools
import pathlib
import shutil
import subprocess

UNKNOWN = "unknown"
_SECONDS = 10.0
_HERE = pathlib.Path(__file__).parent


@functools.cache
def commit(folder: pathlib.Path = _HERE) -> str:
    """Twelve or more digits, with "-dirty" where tracked files differ from it; else UNKNOWN.

    Args:
      folder: a folder that git tracks. One that only lies within somebody's work tree, such as an
        environment's packages, has no commit of its own.
    """
    git = shutil.which("git")
    if git is None:
        return UNKNOWN
    try:
        _ask(git, folder, "ls-files", "--error-unmatch", "__init__.py")
        return _ask(git, folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN


def _ask(git: str, folder: pathlib.Path, *words: str) -> str:
    asked = [git, "-C", str(folder), *words]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_SECONDS)
    return done.stdout.strip()
