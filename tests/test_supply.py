"""What setup.py asks for, and what requirements.lock gives, agree."""

import pathlib
import re
import runpy
import subprocess

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
PINNED = re.compile(r"^(\S+?)==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)


@pytest.fixture(scope="module")
def asked():
    """What setup.py gives to setuptools."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        runpy.run_path(str(ROOT / "setup.py"))
    return given


@pytest.fixture(scope="module")
def locked():
    """Versions of the lock by normalised name; each has hashes."""
    return {canonicalize_name(n): v for n, v, _ in PINNED.findall(lock())}


def lock() -> str:
    return (ROOT / "requirements.lock").read_text()


def requirements(asked, *extras):
    texts = [*asked["install_requires"], *(t for e in extras for t in asked["extras_require"][e])]
    return [Requirement(text) for text in texts]


def is_bounded(requirement: Requirement) -> bool:
    operators = {clause.operator for clause in requirement.specifier}
    return "==" in operators or operators == {">=", "<"}


@pytest.mark.parametrize(
    ("text", "bounded"), [("a>=1,<2", True), ("a==1.*", True), ("a>=1", False), ("a<2", False)]
)
def test_bounds(text, bounded):
    assert is_bounded(Requirement(text)) == bounded


def test_every_requirement_is_bounded_above_and_below(asked):
    every = requirements(asked, *asked["extras_require"])
    built_with = re.search(r'^requires = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    every.append(Requirement(built_with[1]))
    assert [str(r) for r in every if not is_bounded(r)] == []


def test_every_file_of_the_packages_is_packaged(asked):
    """Or an installation that is not editable, such as a Dataflow worker's, lacks it."""
    packages, data = set(asked["packages"]), asked["package_data"]
    missing = []
    for package in ("sitn_tf", "pipelines", "export"):
        folder = ROOT / package
        packaged = {path for pattern in data.get(package, ()) for path in folder.glob(pattern)}
        for path in folder.rglob("*"):
            if path.suffix == ".py" and ".".join(path.parent.relative_to(ROOT).parts) in packages:
                continue
            if path.is_file() and "__pycache__" not in path.parts and path not in packaged:
                missing.append(str(path.relative_to(ROOT)))
    assert missing == [], "name it in package_data of setup.py"
    assert {name.partition(".")[0] for name in packages} == {"sitn_tf", "pipelines", "export"}


def test_the_lock_has_every_requirement_within_its_bounds(asked, locked):
    wanted = requirements(asked, "dev")
    outside = {str(r): locked.get(canonicalize_name(r.name)) for r in wanted}
    for requirement in wanted:
        if Version(locked.get(canonicalize_name(requirement.name), "0")) in requirement.specifier:
            del outside[str(requirement)]
    assert outside == {}, "give `make lock`"


def test_the_lock_pins_with_hashes_and_names_no_place(locked):
    """Whoever installs says where from: no index, no host, no path."""
    lines = [line for line in lock().splitlines() if not line.lstrip().startswith("#")]
    names = [line for line in lines if not line.startswith(" ")]
    assert len(names) == len(locked)
    assert not re.search(r"://|--(?!hash=)| @ ", "\n".join(lines))
    assert not re.search(r"https?:|index", lock())


@pytest.mark.parametrize(("status", "told"), [(0, False), (1, True)])
def test_an_audit_that_fails_says_what_can_be_done(tmp_path, status, told):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pip-audit"
    program.write_text(f'#!/bin/sh\necho "asked with $*" >&2\nexit {status}\n')
    program.chmod(0o755)
    (tmp_path / ".installed").touch()
    done = subprocess.run(
        ["make", "audit", f"SUPPLY={tmp_path}", "AUDIT=--vulnerability-service=osv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--strict" in done.stderr
    assert "--requirement=requirements.lock --vulnerability-service=osv" in done.stderr
    assert (done.returncode != 0, "where pypi.org itself answers" in done.stderr) == (told, told)
