"""The studies by name, and those that a JSON file describes → their arms."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence

from sitn_tf.errors import InputError
from sitn_tf.studies import choices, figure3, paper
from sitn_tf.studies.arms import Arm

STUDIES: Mapping[str, Mapping[str, Arm]] = {
    "table2": paper.TABLE2,
    "table3": paper.TABLE3,
    "table4": paper.TABLE4,
    "sweeps": paper.SWEEPS,
    figure3.NAME: paper.FIGURE3,
    "transfer": choices.TRANSFER,
    "gaps": choices.GAPS,
    "quality": choices.QUALITY,
    "i2c": choices.I2C,
}

_EXAMPLE = '{"wide": {"settings": ["model.embedding_dim=64"], "pretrain": true}}'


def read_study(study: str, only: Sequence[str] = ()) -> dict[str, Arm]:
    """Arms by name, the baseline first.

    Args:
      study: one of STUDIES, or a JSON file of arms.
      only: these arms of it; all if empty.

    Raises:
      InputError: no such study, file or arm.
    """
    if study in STUDIES:
        arms = dict(STUDIES[study])
    elif pathlib.Path(study).is_file():
        arms = _read_arms(pathlib.Path(study))
    else:
        raise InputError(
            f"study={study} is neither one of: {', '.join(STUDIES)}, nor a JSON file of arms"
        )
    unknown = [arm for arm in only if arm not in arms]
    if unknown:
        raise InputError(f"arms={unknown[0]} is not one of: {', '.join(arms)}")
    return {arm: arms[arm] for arm in only} if only else arms


def _read_arms(path: pathlib.Path) -> dict[str, Arm]:
    try:
        described = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"study={path} is not JSON: {error}") from error
    if not isinstance(described, dict) or not described:
        raise InputError(f"study={path} is not a JSON object of arms, such as {_EXAMPLE}")
    return {name: _read_arm(path, name, arm) for name, arm in described.items()}


def _read_arm(path: pathlib.Path, name: str, described: object) -> Arm:
    where = f"study={path}, arm {name!r}"
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"{where} names a folder", "give it letters, digits, '_', '.' and '-'")
    if not isinstance(described, dict):
        raise InputError(f"{where} is {described!r}, not an object such as in {_EXAMPLE}")
    unknown = sorted(described.keys() - {"settings", "pretrain"})
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} is not one of: settings, pretrain")
    settings, pretrain = described.get("settings", []), described.get("pretrain", True)
    if not isinstance(settings, list) or not all(isinstance(s, str) for s in settings):
        raise InputError(f"{where}: settings={settings!r} is not a list of strings")
    if not isinstance(pretrain, bool):
        raise InputError(f"{where}: pretrain={pretrain!r} is not true or false")
    return Arm(tuple(settings), pretrain)
