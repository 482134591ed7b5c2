"""Installed packages → what a version is made of and served by, as CycloneDX 1.6 JSON.

https://cyclonedx.org/docs/1.6/json/. The same packages give the same bytes: no serial number and
no time, which the standard leaves optional.
"""

import functools
import importlib.metadata
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sitn_tf import whole_files

FILE = "assets.extra/bill_of_materials.cdx.json"
PROJECT = "sitn_tf"
SERVER_IMAGE, SERVER_TAG = "tensorflow/serving", "2.21.0"
"""The release of TF Serving of the TensorFlow that exports."""


def write(version: pathlib.Path) -> None:
    """Writes what the packages of this process say into a version's directory."""
    whole_files.write_json(version / FILE, _of_this_process())


@functools.cache
def _of_this_process() -> dict[str, Any]:
    """Made once: reading what eighty packages say takes a second."""
    return document(required(PROJECT))


def required(root: str) -> dict[str, importlib.metadata.Distribution]:
    """A package and all that it needs here, by normalised name.

    Extras of a package count where another one asks for them. A project that runs from its
    source, installed nowhere, has no metadata to say what it needs: then all installed packages
    are taken for needed.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    seen, left = set(), [(root, "")]
    while left:
        asked = left.pop()
        if asked in seen:
            continue
        seen.add(asked)
        name, extra = asked
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # what is not here made nothing
        found[_name(distribution)] = distribution
        for requirement in _requirements(distribution, extra):
            left += [(requirement.name, extra) for extra in ("", *requirement.extras)]
    every = importlib.metadata.distributions()
    return found or {_name(one): one for one in every if one.metadata["Name"]}


def document(packages: Mapping[str, importlib.metadata.Distribution]) -> dict[str, Any]:
    """The bill of materials of a model that these packages made.

    Args:
      packages: by normalised name.
    """
    made_by = [_component(packages[name]) for name in sorted(packages)]
    python = {
        "type": "platform",
        "bom-ref": "python",
        "name": platform.python_implementation(),
        "version": platform.python_version(),
    }
    server = {
        "type": "container",
        "bom-ref": "server",
        "name": SERVER_IMAGE,
        "version": SERVER_TAG,
        "purl": f"pkg:docker/{SERVER_IMAGE}@{SERVER_TAG}",
    }
    needs = {
        _reference(packages[name]): sorted(
            {
                _reference(packages[needed])
                for requirement in _requirements(packages[name])
                if (needed := canonicalize_name(requirement.name)) in packages
            }
        )
        for name in sorted(packages)
    }
    model = {"ref": "model", "dependsOn": ["python", "server", *needs]}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": "servable",
            }
        },
        "components": [python, server, *made_by],
        "dependencies": [model, *({"ref": ref, "dependsOn": on} for ref, on in needs.items())],
    }


def _requirements(
    distribution: importlib.metadata.Distribution, extra: str = ""
) -> list[Requirement]:
    """What a package needs on this machine, without the extra or with it."""
    told = [Requirement(text) for text in distribution.requires or ()]
    return [r for r in told if r.marker is None or r.marker.evaluate({"extra": extra})]


def _name(distribution: importlib.metadata.Distribution) -> str:
    return canonicalize_name(distribution.metadata["Name"])


def _reference(distribution: importlib.metadata.Distribution) -> str:
    """The package's URL (purl), which names it in the whole document."""
    return f"pkg:pypi/{_name(distribution)}@{distribution.version}"


def _component(distribution: importlib.metadata.Distribution) -> dict[str, Any]:
    reference = _reference(distribution)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference,
        "name": _name(distribution),
        "version": distribution.version,
        "purl": reference,
    }
    if "License-Expression" in distribution.metadata:
        component["licenses"] = [{"expression": distribution.metadata["License-Expression"]}]
    return component
