"""The directory of a servable: numbered versions, and what each says of itself.

SERVABLE/3/                            a version: what TF Serving loads, and
assets.extra/metadata.json           what it is
assets.extra/checksums.sha256        that it is whole, as sha256sum has it
SERVABLE/withdrawn.4/                  a version that was withdrawn
SERVABLE/.unfinished.<...>/            an export under way
SERVABLE/.highest                      the highest number of a version that was pruned
SERVABLE/.lock                         whoever changes something is at it
"""

import datetime
import json
import pathlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sitn_tf import locks, whole_files
from sitn_tf.errors import InputError

FORMAT = 2
"""Of a version's directory, in its metadata; from 2 on it has checksums."""
CHECKSUMS_FILE = "assets.extra/checksums.sha256"
METADATA_FILE = "assets.extra/metadata.json"
WITHDRAWN = "withdrawn."
HIGHEST_FILE = ".highest"
"""The highest number of a version that was pruned, so that it is given to no other."""
UNFINISHED = ".unfinished."
LARGEST = 2**63 - 1
"""The highest number that TF Serving takes for a version; it ignores directories above."""
LOCK_FILE = ".lock"


@contextmanager
def locked(servable: pathlib.Path) -> Iterator[None]:
    """Nobody else changes a servable meanwhile; what killed exports left in it is removed first.

    Raises:
      InputError: somebody does.
    """
    with locks.held(servable / LOCK_FILE, str(servable)):
        for folder in children(servable):
            if folder.name.startswith(UNFINISHED):
                shutil.rmtree(folder)
        yield


def present(servable: pathlib.Path) -> list[int]:
    """The versions that are served from, ascending."""
    return _numbers(servable, "")


def withdrawn(servable: pathlib.Path) -> list[int]:
    """Those that are not served, but may be again, ascending."""
    return _numbers(servable, WITHDRAWN)


def next_version(servable: pathlib.Path) -> int:
    """One more than any version there is, was withdrawn or was pruned.

    Raises:
      InputError: the number of the one that was pruned can't be read.
    """
    highest = servable / HIGHEST_FILE
    try:
        pruned = int(highest.read_bytes()) if highest.is_file() else 0
    except ValueError as error:
        raise InputError(
            f"{highest} is damaged: it holds no number",
            "write into it the highest version that there ever was, so that none is given twice",
        ) from error
    return max([pruned, *present(servable), *withdrawn(servable)]) + 1


def _numbers(servable: pathlib.Path, prefix: str) -> list[int]:
    names = [p.name.removeprefix(prefix) for p in children(servable) if p.name.startswith(prefix)]
    return sorted(int(n) for n in names if n.isascii() and n.isdigit() and str(int(n)) == n)


def children(servable: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in servable.iterdir() if p.is_dir()] if servable.is_dir() else []


def check_number(version: int) -> None:
    """Raises InputError for what TF Serving takes for no version."""
    if not 0 < version <= LARGEST:
        raise InputError(f"version={version} is not an integer from 1 to {LARGEST}")


def check_free(servable: pathlib.Path, version: int) -> None:
    """Whether a version may be written.

    Raises:
      InputError: it is no version's number, exists, was withdrawn, or is below the next number.
    """
    check_number(version)
    following = next_version(servable)
    free = f"leave the version out for version {following}"
    if version in present(servable):
        raise InputError(f"{servable / str(version)} exists", free)
    if version in withdrawn(servable):
        raise InputError(
            f"version {version} of {servable} was withdrawn",
            f"{free}, or take it back with python -m export.versions --servable={servable} "
            f"--restore={version}",
        )
    if version < following:
        raise InputError(
            f"version {version} of {servable} is below one that there is or was: it would not be "
            "served, or has been given before",
            free,
        )


@contextmanager
def unfinished_version(servable: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory to fill and `publish`; what was not published when the block ends is removed."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    unfinished = servable / f"{UNFINISHED}{stamp}"
    unfinished.mkdir(parents=True)
    try:
        with whole_files.naming(unfinished):
            yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def publish(unfinished: pathlib.Path, servable: pathlib.Path, version: int | None) -> pathlib.Path:
    """Renames a whole directory to `version`, or to the next free integer.

    Raises:
      InputError: the version exists, also when another export made it meanwhile.
    """
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
    """Withdraws the newest version; returns it and the one served from now on.

    Raises:
      InputError: there is none before the newest, or its files are not as exported.
    """
    versions = present(servable)
    if len(versions) < 2:
        raise InputError(
            f"{servable} has {len(versions)} version(s): there is none before the newest "
            "to go back to"
        )
    newest, before = versions[-1], versions[-2]
    _check_whole(servable / str(before), "served", _what_is_whole(servable))
    (servable / str(newest)).rename(servable / f"{WITHDRAWN}{newest}")
    return newest, before


def _check_whole(version: pathlib.Path, how: str, remedy: str) -> None:
    damage = flaw(version)
    if damage is not None:
        raise InputError(f"{version}, which would be {how}, is damaged: {damage}", remedy)


def _what_is_whole(servable: pathlib.Path) -> str:
    return (
        f"see what is whole with python -m export.versions --servable={servable} --check, and "
        "remove what is not with --prune"
    )


def restore(servable: pathlib.Path, version: int) -> None:
    """Takes a withdrawn version back.

    Raises:
      InputError: it is not there, or its files are not as exported.
    """
    if version not in withdrawn(servable):
        raise InputError(
            f"restore={version} is not among the withdrawn versions of {servable}: "
            f"{', '.join(map(str, withdrawn(servable))) or 'none'}"
        )
    kept = servable / f"{WITHDRAWN}{version}"
    _check_whole(
        kept, "served", "bring the file back, or export again with python -m export.export_model"
    )
    kept.rename(servable / str(version))


def retain(servable: pathlib.Path, keep: int) -> list[int]:
    """Removes all but the newest `keep` versions; returns those removed.

    Raises:
      InputError: one that would be kept is not as exported; nothing is removed.
    """
    versions = present(servable)
    removed = versions[:-keep]
    for version in versions[-keep:] if removed else ():
        _check_whole(servable / str(version), "kept", _what_is_whole(servable))
    for version in removed:
        remove(servable / str(version))
    return removed


def write_checksums(version_dir: pathlib.Path) -> None:
    """Writes the SHA-256 of every file there is; `sha256sum -c` reads it too."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(_digests(version_dir).items())]
    (version_dir / CHECKSUMS_FILE).write_text("".join(lines))


def _digests(version_dir: pathlib.Path) -> dict[str, str]:
    digests = {}
    for path in version_dir.rglob("*"):
        name = path.relative_to(version_dir).as_posix()
        if path.is_file() and name != CHECKSUMS_FILE:
            digests[name] = whole_files.sha256(path)
    return digests


def flaw(version_dir: pathlib.Path) -> str | None:
    """What is wrong with a version's files, None if they are as they were written."""
    try:
        told = read_metadata(version_dir)
        text = (version_dir / CHECKSUMS_FILE).read_text()
    except InputError as error:
        return error.message.removeprefix(f"{version_dir} is damaged, ")
    except FileNotFoundError:
        return f"{CHECKSUMS_FILE} is missing" if told.get("format", 1) >= FORMAT else None
    except ValueError:
        return f"{CHECKSUMS_FILE} cannot be read"
    if not text.endswith("\n"):
        return f"{CHECKSUMS_FILE} is cut off"
    written = {name: digest for digest, _, name in (x.partition("  ") for x in text.splitlines())}
    now = _digests(version_dir)
    for name in sorted(written.keys() | now.keys()):
        if name not in now:
            return f"{name} is missing"
        if name not in written:
            return f"{name} was not exported with it: {CHECKSUMS_FILE} does not have it"
        if now[name] != written[name]:
            return f"{name} is not as exported"
    return None


def check_whole(version_dir: pathlib.Path) -> None:
    """Raises InputError unless a version's files are as they were written."""
    read_metadata(version_dir)
    damage = flaw(version_dir)
    if damage is not None:
        raise InputError(
            f"{version_dir} is damaged: {damage}",
            "export it again with python -m export.export_model --force, or bring the file back",
        )


def remove(version_dir: pathlib.Path) -> None:
    """Renames before it removes, so that a server never sees half of a version."""
    doomed = version_dir.rename(version_dir.with_name(f"{UNFINISHED}removed.{version_dir.name}"))
    shutil.rmtree(doomed)


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
    if not any((version_dir / name).exists() for name in ("saved_model.pb", "assets.extra")):
        raise InputError(
            f"{version_dir} is no version of a servable: name one, such as SERVABLE/1, written by "
            "python -m export.export_model"
        )
    try:
        told = json.loads((version_dir / METADATA_FILE).read_text())
        if not isinstance(told, dict) or not told.keys() >= {"created", "options", "run"}:
            raise ValueError("not what an export says of itself")
        return told
    except (OSError, ValueError) as error:
        raise InputError(
            f"{version_dir} is damaged, {METADATA_FILE} cannot be read",
            "export it again with python -m export.export_model --force",
        ) from error


def describe(servable: pathlib.Path) -> str:
    """One line a version, the newest last."""

    def line(version: int) -> str:
        try:
            told = read_metadata(servable / str(version))
        except InputError:
            return f"{version}  damaged: {METADATA_FILE} cannot be read"
        tables = told["options"]["tables"]
        return f"{version}  {told['created']}  run {told['run']['run_dir']}  tables {tables}"

    lines = [line(version) for version in present(servable)]
    lines[-1:] = [f"{newest}  <- served" for newest in lines[-1:]]
    return "\n".join(lines + [f"{version}  withdrawn" for version in withdrawn(servable)])
