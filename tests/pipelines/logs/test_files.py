"""A whole job on a filesystem of Beam's other than the local one: an object store's double."""

import pathlib

import pytest
from apache_beam.io import filesystem

from pipelines import build_dataset
from pipelines.logs import files
from sitn_tf import schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs
from tests.pipelines.object_names import ObjectNames

STORE: dict[str, pathlib.Path] = {}


class ObjectStore(ObjectNames, filesystem.FileSystem):
    """store://... in a folder."""

    @classmethod
    def scheme(cls):
        return "store"

    def _path(self, url):
        return STORE["root"] / url.removeprefix("store://")

    def all_names(self):
        root = STORE["root"]
        return sorted(f"store://{p.relative_to(root)}" for p in root.rglob("*") if p.is_file())

    def move(self, old, new):
        target = self._path(new)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path(old).rename(target)

    def remove(self, name):
        self._path(name).unlink()

    def create(self, path, mime_type="", compression_type="auto"):
        self._path(path).parent.mkdir(parents=True, exist_ok=True)
        return open(self._path(path), "wb")

    def open(self, path, mime_type="", compression_type="auto"):
        return open(self._path(path), "rb")

    def exists(self, path):
        return path in self.all_names()

    def size(self, path):
        return self._path(path).stat().st_size


@pytest.fixture
def store(tmp_path):
    STORE["root"] = tmp_path / "store"
    STORE["root"].mkdir()
    return STORE["root"]


def test_a_job_on_an_object_store(store, tmp_path):
    (store / "logs").mkdir()
    local = logs.two_logs(store / "logs")
    flags = ["--source_log=store://logs/source*", "--target_log=store://logs/target*",
             "--shards=3"]  # fmt: skip
    found = build_dataset.run([*flags, "--output=store://data/set"])
    expected = build_dataset.run([*local, "--shards=3", f"--output={tmp_path}/local"])
    assert found.dataset_hash == expected.dataset_hash
    here = {str(p.relative_to(tmp_path / "local"))
            for p in (tmp_path / "local").rglob("*") if p.is_file()}  # fmt: skip
    there = {str(p.relative_to(store / "data" / "set"))
             for p in (store / "data" / "set").rglob("*") if p.is_file()}  # fmt: skip
    assert there == here
    assert [p for p in (store / "data").rglob("*") if p.is_file() and "tmp-" in str(p)] == []
    assert schema.read_manifest(store / "data" / "set").dataset_hash == found.dataset_hash
    with pytest.raises(InputError, match="--output=store://data/set is there already"):
        build_dataset.run([*flags, "--output=store://data/set"])
    build_dataset.run([*flags, "--output=store://data/set", "--overwrite"])
    with pytest.raises(InputError, match="--source_log=store://logs/none matches no file"):
        build_dataset.run([*flags, "--source_log=store://logs/none", "--output=store://x"])


def test_attempts_never_share_a_path():
    assert files.attempt_path("f", "a") != files.attempt_path("f", "a")
