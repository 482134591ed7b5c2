"""The versions of a servable: which there are, whether they are whole, and going back.

    python -m export.versions --servable=SERVABLE                  lists them
    python -m export.versions --servable=SERVABLE --rollback       withdraws the newest
    python -m export.versions --servable=SERVABLE --restore=3      takes it back
    python -m export.versions --servable=SERVABLE --keep=3         removes all but the newest 3
    python -m export.versions --servable=SERVABLE --check          loads each; status 1 if broken
    python -m export.versions --servable=SERVABLE --prune          removes what is of no use

TF Serving serves the highest integers in the directory and ignores other names: a version
withdrawn is renamed to withdrawn.N, and the server goes back to the one before it. A server
that starts on a broken newest version does not start, though one that runs keeps the good one:
--check before a restart, then --rollback or --prune.
"""

import datetime
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from absl import flags

from sitn_tf import cli, quiet, whole_files
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

_CHECK = flags.DEFINE_boolean(
    "check", False, "Check that each is whole, loads and answers.", flag_values=FLAGS
)
_PRUNE = flags.DEFINE_boolean(
    "prune", False, "Remove broken, unfinished and withdrawn versions.", flag_values=FLAGS
)

BROKEN = 1
CHECKSUMS_FILE = "assets.extra/checksums.sha256"
METADATA_FILE = "assets.extra/metadata.json"
WITHDRAWN = "withdrawn."
HIGHEST_FILE = ".highest"
"""The highest number of a version that was pruned, so that it is given to no other."""
_UNFINISHED = ".unfinished."
ABANDONED_SECONDS = 3600.0
"""An unfinished version that nobody wrote to for so long is nobody's: an export is done sooner."""


def present(servable: pathlib.Path) -> list[int]:
    """The versions that are served from, ascending."""
    return _numbers(servable, "")


def withdrawn(servable: pathlib.Path) -> list[int]:
    """Those that are not served, but may be again, ascending."""
    return _numbers(servable, WITHDRAWN)


def next_version(servable: pathlib.Path) -> int:
    """One more than any version there is, was withdrawn or was pruned."""
    highest = servable / HIGHEST_FILE
    pruned = int(highest.read_text()) if highest.is_file() else 0
    return max([pruned, *present(servable), *withdrawn(servable)]) + 1


def _numbers(servable: pathlib.Path, prefix: str) -> list[int]:
    names = [p.name.removeprefix(prefix) for p in _children(servable) if p.name.startswith(prefix)]
    return sorted(int(n) for n in names if n.isascii() and n.isdigit() and str(int(n)) == n)


def _children(servable: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in servable.iterdir() if p.is_dir()] if servable.is_dir() else []


def check_free(servable: pathlib.Path, version: int) -> None:
    """Raises InputError where the version exists, or was withdrawn."""
    free = f"leave the version out for version {next_version(servable)}"
    if version in present(servable):
        raise InputError(f"{servable / str(version)} exists", free)
    if version in withdrawn(servable):
        raise InputError(
            f"version {version} of {servable} was withdrawn",
            f"{free}, or take it back with python -m export.versions --servable={servable} "
            f"--restore={version}",
        )


@contextmanager
def unfinished_version(servable: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory to fill and `publish`; what was not published when the block ends is removed."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    unfinished = servable / f"{_UNFINISHED}{stamp}"
    unfinished.mkdir(parents=True)
    try:
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
            f"restore={version} is not among the withdrawn versions of {servable}: "
            f"{', '.join(map(str, withdrawn(servable))) or 'none'}"
        )
    (servable / f"{WITHDRAWN}{version}").rename(servable / str(version))


def retain(servable: pathlib.Path, keep: int) -> list[int]:
    """Removes all but the newest `keep` versions; returns those removed."""
    removed = present(servable)[:-keep]
    for version in removed:
        _remove(servable / str(version))
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
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def flaw(version_dir: pathlib.Path) -> str | None:
    """What is wrong with a version's files, None if they are as they were written."""
    try:
        read_metadata(version_dir)
        text = (version_dir / CHECKSUMS_FILE).read_text()
    except InputError as error:
        return error.message
    except OSError:
        return None  # exported before there were checksums
    written = {name: digest for digest, _, name in (x.partition("  ") for x in text.splitlines())}
    now = _digests(version_dir)
    for name in sorted(written.keys() | now.keys()):
        if name not in now:
            return f"{name} is missing"
        if name not in written:
            return f"{name} was not exported with it"
        if now[name] != written[name]:
            return f"{name} is not as exported"
    return None


def check(servable: pathlib.Path) -> dict[int, str | None]:
    """What is wrong with each version: its files, then how they load and answer.

    Returns:
      None where the C++ loader answered the golden and the warm-up requests.

    Raises:
      InputError: there is no C++ loader here, which says nothing of any version.
    """
    from export import native, verify

    native.build()

    def wrong(version: pathlib.Path) -> str | None:
        try:
            damage = flaw(version)
            if damage is None:
                verify.check(version)
        except InputError as error:
            return error.message
        return damage

    return {version: wrong(servable / str(version)) for version in present(servable)}


def prune(servable: pathlib.Path, now: float | None = None) -> list[str]:
    """Removes broken and withdrawn versions, and unfinished ones that nobody writes any more.

    Args:
      now: seconds since the epoch.

    Returns:
      Names of the directories removed.

    Raises:
      InputError: no version is whole; nothing is removed.
    """
    flaws = check(servable)
    if flaws and all(flaws.values()):
        raise InputError(
            f"no version of {servable} is whole, nothing was removed: {next(iter(flaws.items()))}",
            "export one with python -m export.export_model, or take back a withdrawn one",
        )
    highest = next_version(servable) - 1
    doomed = [str(version) for version, wrong in flaws.items() if wrong]
    doomed += [f"{WITHDRAWN}{version}" for version in withdrawn(servable)]
    doomed += _abandoned(servable, time.time() if now is None else now)
    whole_files.write_text(servable / HIGHEST_FILE, f"{highest}\n")
    for name in doomed:
        _remove(servable / name)
    return doomed


def _abandoned(servable: pathlib.Path, now: float) -> list[str]:
    def last_written(folder: pathlib.Path) -> float:
        try:
            return max(p.stat().st_mtime for p in (folder, *folder.rglob("*")))
        except FileNotFoundError:
            return now  # somebody is at it

    return sorted(
        folder.name
        for folder in _children(servable)
        if folder.name.startswith(_UNFINISHED) and last_written(folder) < now - ABANDONED_SECONDS
    )


def _remove(version_dir: pathlib.Path) -> None:
    """Renames before it removes, so that a server never sees half of a version."""
    doomed = version_dir.rename(version_dir.with_name(f"{_UNFINISHED}removed.{version_dir.name}"))
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
    try:
        return json.loads((version_dir / METADATA_FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{version_dir} is damaged, {METADATA_FILE} cannot be read: "
            "export it again with python -m export.export_model --force"
        ) from error


def describe(servable: pathlib.Path) -> str:
    """One line a version, the newest last."""

    def line(version: int) -> str:
        told = read_metadata(servable / str(version))
        tables = told["options"]["tables"]
        return f"{version}  {told['created']}  run {told['run']['run_dir']}  tables {tables}"

    lines = [line(version) for version in present(servable)]
    lines[-1:] = [f"{newest}  <- served" for newest in lines[-1:]]
    return "\n".join(lines + [f"{version}  withdrawn" for version in withdrawn(servable)])


def main(_: list[str]) -> int:
    """Lists the versions after doing what the flags ask; the status is 1 where one is broken."""
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
    if _PRUNE.value:
        quiet.import_tensorflow()
        print(f"removed {', '.join(prune(servable)) or 'none'}")
    if _CHECK.value:
        quiet.import_tensorflow()
        return _report(check(servable))
    print(describe(servable))
    return 0


def _report(flaws: dict[int, str | None]) -> int:
    for version, wrong in flaws.items():
        print(f"{version}  {'ok' if wrong is None else f'BROKEN: {wrong}'}")
    if not any(flaws.values()):
        return 0
    if flaws[max(flaws)]:
        print(
            "the newest is broken: a server that starts does not start with it, one that runs "
            "keeps the version before. Withdraw it with --rollback, or remove all that are "
            "broken with --prune"
        )
    return BROKEN


if __name__ == "__main__":
    cli.run(main, FLAGS)
