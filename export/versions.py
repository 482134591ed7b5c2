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

import contextlib
import pathlib

from absl import flags

from export import version_files
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
    "prune", False, "Remove broken and withdrawn versions.", flag_values=FLAGS
)

BROKEN = 1
_WHERE_NONE_IS_SERVED = (
    "export one with python -m export.export_model, or take back a withdrawn one with --restore"
)


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
            damage = version_files.flaw(version)
            if damage is None:
                verify.check(version)
        except InputError as error:
            return error.message
        return damage

    return {version: wrong(servable / str(version)) for version in version_files.present(servable)}


def prune(servable: pathlib.Path) -> list[str]:
    """Removes broken and withdrawn versions; see `version_files.locked` for unfinished ones.

    Returns:
      Names of the directories removed.

    Raises:
      InputError: no version is whole; nothing is removed.
    """
    flaws = check(servable)
    if not flaws:
        raise InputError(
            f"no version of {servable} is served, nothing was removed", _WHERE_NONE_IS_SERVED
        )
    if all(flaws.values()):
        version, wrong = next(iter(flaws.items()))
        raise InputError(
            f"no version of {servable} is whole, nothing was removed (version {version}: {wrong})",
            "export one with python -m export.export_model, or take back a withdrawn one",
        )
    highest = version_files.next_version(servable) - 1
    doomed = [str(version) for version, wrong in flaws.items() if wrong]
    doomed += [
        f"{version_files.WITHDRAWN}{version}" for version in version_files.withdrawn(servable)
    ]
    if highest not in (version for version, wrong in flaws.items() if not wrong):
        whole_files.write_text(servable / version_files.HIGHEST_FILE, f"{highest}\n")
    for name in doomed:
        version_files.remove(servable / name)
    return doomed


def main(_: list[str]) -> int:
    """Lists the versions after doing what the flags ask; the status is 1 where one is broken."""
    if _SERVABLE.value is None:
        raise InputError("--servable is missing: name a directory of exported versions")
    servable = pathlib.Path(_SERVABLE.value)
    if (servable / version_files.METADATA_FILE).is_file():
        raise InputError(f"{servable} is a version: name its servable, {servable.parent}")
    if not version_files.present(servable) and not version_files.withdrawn(servable):
        raise InputError(
            f"{servable} holds no versions: export one with python -m export.export_model"
        )
    changing = bool(_RESTORE.value or _ROLLBACK.value or _KEEP.value or _PRUNE.value)
    with version_files.locked(servable) if changing else contextlib.nullcontext():
        _change(servable)
    if _CHECK.value:
        quiet.import_tensorflow()
        return _report(check(servable))
    print(version_files.describe(servable))
    return 0


def _change(servable: pathlib.Path) -> None:
    """Does what the flags ask and says what it did."""
    if _RESTORE.value is not None:
        version_files.restore(servable, _RESTORE.value)
    if _ROLLBACK.value:
        newest, before = version_files.rollback(servable)
        print(f"withdrew {newest}, {before} is served; undo with --restore={newest}")
    if _KEEP.value is not None:
        removed = version_files.retain(servable, _KEEP.value)
        print(f"removed {', '.join(map(str, removed)) or 'none'}")
    if _PRUNE.value:
        quiet.import_tensorflow()
        print(f"removed {', '.join(prune(servable)) or 'none'}")


def _report(flaws: dict[int, str | None]) -> int:
    for version, wrong in flaws.items():
        print(f"{version}  {'ok' if wrong is None else f'BROKEN: {wrong}'}")
    if flaws and not any(flaws.values()):
        return 0
    if not flaws:
        print(f"no version is served: {_WHERE_NONE_IS_SERVED}")
        return BROKEN
    if all(flaws.values()):
        print(
            "none is whole: export one with python -m export.export_model --allow_drift, then "
            "remove these with --prune"
        )
    elif flaws[max(flaws)]:
        print(
            "the newest is broken: a server that starts does not start with it, one that runs "
            "keeps the version before. Withdraw it with --rollback, or remove all that are "
            "broken with --prune"
        )
    return BROKEN


if __name__ == "__main__":
    cli.run(main, FLAGS)
