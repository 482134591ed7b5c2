"""What a version says it is made of."""

import importlib.metadata
import json
import shutil

import pytest

from export import bill_of_materials, verify, version_files
from sitn_tf.errors import InputError
from tests.commands import run_main

PURL = "pkg:pypi/{}@{}"


class Package(importlib.metadata.Distribution):
    """An installed package of these words."""

    def __init__(self, name, version, *requires, **headers):
        lines = [f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
        self.text = "\n".join(lines)

    def read_text(self, filename):
        return self.text if filename == "METADATA" else None

    def locate_file(self, path):
        raise NotImplementedError


INSTALLED = (
    Package("Root_it", "1.0", "Leaf.B>=2", 'absent-here; sys_platform == "nowhere"', "gone"),
    Package("leaf-b", "2.5", "extra-ed[quick]", 'tests; extra == "dev"', License_Expression="MIT"),
    Package("extra-ed", "3", 'speedup; extra == "quick"'),
    Package("speedup", "4"),
    Package("tests", "5"),
)


@pytest.fixture
def installed(monkeypatch):
    def distribution(name):
        for package in INSTALLED:
            if bill_of_materials.canonicalize_name(name) == bill_of_materials._name(package):
                return package
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: INSTALLED)


def test_what_is_needed_here_with_the_extras_asked_for(installed):
    assert sorted(bill_of_materials.required("root-it")) == [
        "extra-ed", "leaf-b", "root-it", "speedup",
    ]  # fmt: skip


def test_a_project_installed_nowhere_was_made_by_all_there_is(installed):
    assert len(bill_of_materials.required("elsewhere")) == len(INSTALLED)


def test_the_fields_that_the_standard_asks_for(installed):
    bill = bill_of_materials.document(bill_of_materials.required("root-it"))
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    references = [bill["metadata"]["component"]["bom-ref"]]
    references += [component["bom-ref"] for component in bill["components"]]
    assert len(set(references)) == len(references)
    assert all({"type", "name", "version"} <= c.keys() for c in bill["components"])
    [leaf] = [c for c in bill["components"] if c["name"] == "leaf-b"]
    assert leaf == {
        "type": "library",
        "bom-ref": "pkg:pypi/leaf-b@2.5",
        "name": "leaf-b",
        "version": "2.5",
        "purl": "pkg:pypi/leaf-b@2.5",
        "licenses": [{"expression": "MIT"}],
    }
    needs = {d["ref"]: d["dependsOn"] for d in bill["dependencies"]}
    assert needs["pkg:pypi/root-it@1.0"] == ["pkg:pypi/leaf-b@2.5"]
    assert set(references) == {"model", *needs["model"]}
    assert {ref for on in needs.values() for ref in on} <= set(references)


def test_a_version_names_the_packages_of_this_process_and_the_server(servable):
    bill = json.loads((servable / "1" / bill_of_materials.FILE).read_text())
    named = {component.get("purl") for component in bill["components"]}
    for name in ("tensorflow", "tf-keras", "numpy", "apache-beam"):
        assert PURL.format(name, importlib.metadata.version(name)) in named
    assert "pkg:docker/tensorflow/serving@2.21.0" in named
    assert not any("pytest" in purl for purl in named if purl)  # a tool of those who change it


def test_the_same_packages_give_the_same_bytes(servable, tmp_path):
    (tmp_path / "assets.extra").mkdir()
    bill_of_materials._of_this_process.cache_clear()
    bill_of_materials.write(tmp_path)
    made = (tmp_path / bill_of_materials.FILE).read_bytes()
    assert made == (servable / "1" / bill_of_materials.FILE).read_bytes()


def test_verify_sees_another_bill(servable, tmp_path):
    broken = shutil.copytree(servable / "1", tmp_path / "1")
    bill = broken / bill_of_materials.FILE
    bill.write_text(bill.read_text().replace("tensorflow", "tensorflaw"))
    told = rf"/1 is damaged: {bill_of_materials.FILE} is not as exported: export it again"
    with pytest.raises(InputError, match=told):
        run_main(verify, f"--servable={broken}")
    assert bill_of_materials.FILE in (broken / version_files.CHECKSUMS_FILE).read_text()
