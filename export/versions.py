"""The versions of a servable: which there are, how many are kept, and going back.

    python -m export.versions --servable=SERVABLE                  lists them
    python -m export.versions --servable=SERVABLE --rollback       withdraws the newest
    python -m export.versions --servable=SERVABLE --restore=3      takes it back
    python -m export.versions --servable=SERVABLE --keep=3         removes all but the newest 3

TF Serving serves the highest integer in the directory and ignores other names: a version
withdrawn is renamed to withdrawn.N, and the server goes back to the one before it.
"""

import dataclasses
import datetime
import json
import pathlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from absl import flags

from sitn_tf import cli
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
_SERVABLE = flags.DEFINE_string("servable", None, "Directory of versions.", flag_values=FLAGS)
_ROLLBACK = flags.DEFINE_boolean("rollback", False, "Withdraw the newest.", flag_values=FLAGS)
_RESTORE = flags.DEFINE_integer(
    "restore", None, "Take a withdrawn version back.", lower_bound=1, flag_values=FLAGS
)
_KEEP = flags.DEFINE_integer(
    "keep", None, "Versions to keep; older are removed.", lower_bound=1, flag_values=FLAGS
)

METADATA_FILE = "assets.extra/metadata.json"
WITHDRAWN = "withdrawn."
_UNFINISHED = ".unfinished."


def present(servable: pathlib.Path) -> list[int]:
    """The versions that are served from, ascending."""
    return sorted(int(p.name) for p in _children(servable) if _is_version(p.name))


def withdrawn(servable: pathlib.Path) -> list[int]:
    names = (p.name.removeprefix(WITHDRAWN) for p in _children(servable)
             if p.name.startswith(WITHDRAWN))  # fmt: skip
    return sorted(int(name) for name in names if _is_version(name))


def next_version(servable: pathlib.Path) -> int:
    """One more than any version there is or was withdrawn."""
    return max([0, *present(servable), *withdrawn(servable)]) + 1


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _children(servable: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in servable.iterdir() if p.is_dir()] if servable.is_dir() else []


def check_free(servable: pathlib.Path, version: int) -> None:
    """Raises InputError where the version exists, or was withdrawn."""
    if version in present(servable):
        raise InputError(
            f"{servable / str(version)} exists: leave --version out for version "
            f"{next_version(servable)}"
        )
    if version in withdrawn(servable):
        raise InputError(
            f"version {version} of {servable} was withdrawn: leave --version out for version "
            f"{next_version(servable)}, or take it back with python -m export.versions "
            f"--servable={servable} --restore={version}"
        )


@dataclasses.dataclass
class NewVersion:
    """A version in the making.

    Attributes:
      path: where its files are, now and after.
      wanted: set it to False, and the directory is removed instead.
    """

    path: pathlib.Path
    wanted: bool = True


@contextmanager
def new_version(servable: pathlib.Path, version: int | None) -> Iterator["NewVersion"]:
    """A directory to fill, that becomes the version when the block ends without an error.

    Raises:
      InputError: the version exists, also when another export made it meanwhile.
    """
    if version is not None:
        check_free(servable, version)
    servable.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    unfinished = servable / f"{_UNFINISHED}{stamp}"
    unfinished.mkdir()
    try:
        new = NewVersion(unfinished)
        yield new
        if new.wanted:
            new.path = publish(unfinished, servable, version)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def publish(unfinished: pathlib.Path, servable: pathlib.Path, version: int | None) -> pathlib.Path:
    """Renames a whole directory to `version`, or to the next free integer."""
    number = version if version is not None else next_version(servable)
    check_free(servable, number)
    try:
        # Fails, rather than replaces, if another export has just made this version.
        return unfinished.rename(servable / str(number))
    except OSError as error:
        raise InputError(
            f"{servable / str(number)} was made by another export meanwhile: export again"
        ) from error


def rollback(servable: pathlib.Path) -> tuple[int, int]:
    """Withdraws the newest version; returns it and the one served from now on."""
    versions = present(servable)
    if len(versions) < 2:
        raise InputError(
            f"{servable} has {len(versions)} version(s): there is none before the newest "
            "to go back to"
        )
    newest, before = versions[-1], versions[-2]
    (servable / str(newest)).rename(servable / f"{WITHDRAWN}{newest}")
    return newest, before


def restore(servable: pathlib.Path, version: int) -> None:
    """Takes a withdrawn version back."""
    if version not in withdrawn(servable):
        raise InputError(
            f"--restore={version} is not among the withdrawn versions of {servable}: "
            f"{', '.join(map(str, withdrawn(servable))) or 'none'}"
        )
    (servable / f"{WITHDRAWN}{version}").rename(servable / str(version))


def retain(servable: pathlib.Path, keep: int) -> list[int]:
    """Removes all but the newest `keep` versions; returns those removed.

    A version is renamed before it is removed, so that a server never sees half of one.
    """
    removed = present(servable)[:-keep]
    for version in removed:
        doomed = (servable / str(version)).rename(servable / f"{_UNFINISHED}removed.{version}")
        shutil.rmtree(doomed)
    return removed


def read_metadata(version_dir: pathlib.Path) -> dict[str, Any]:
    """What the export wrote about itself.

    Raises:
      InputError: no such version, or damaged.
    """
    if not version_dir.is_dir():
        raise InputError(
            f"{version_dir} is not a directory: name a version of a servable, such as "
            "SERVABLE/1, written by python -m export.export_model"
        )
    inside = present(version_dir)
    if inside and not (version_dir / METADATA_FILE).is_file():
        newest = version_dir / str(inside[-1])
        raise InputError(f"{version_dir} is a servable: name one of its versions, {newest}")
    try:
        return json.loads((version_dir / METADATA_FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{version_dir} is damaged, {METADATA_FILE} cannot be read: "
            "export it again with python -m export.export_model --force"
        ) from error


def describe(servable: pathlib.Path) -> str:
    """One line a version, the newest last."""
    lines = []
    versions = present(servable)
    for version in versions:
        metadata = read_metadata(servable / str(version))
        served = "  <- served" if version == versions[-1] else ""
        lines.append(
            f"{version}  {metadata['created']}  run {metadata['run']['run_dir']}  "
            f"tables {metadata['options']['tables']}{served}"
        )
    lines += [f"{version}  withdrawn" for version in withdrawn(servable)]
    return "\n".join(lines)


def main(_: list[str]) -> None:
    """Lists the versions after doing what the flags ask."""
    if _SERVABLE.value is None:
        raise InputError("--servable is missing: name a directory of exported versions")
    servable = pathlib.Path(_SERVABLE.value)
    if not present(servable) and not withdrawn(servable):
        raise InputError(
            f"{servable} holds no versions: export one with python -m export.export_model"
        )
    if _RESTORE.value is not None:
        restore(servable, _RESTORE.value)
    if _ROLLBACK.value:
        newest, before = rollback(servable)
        print(f"withdrew {newest}, {before} is served; undo with --restore={newest}")
    if _KEEP.value is not None:
        removed = retain(servable, _KEEP.value)
        print(f"removed {', '.join(map(str, removed)) or 'none'}")
    print(describe(servable))


if __name__ == "__main__":
    cli.run(main, FLAGS)
