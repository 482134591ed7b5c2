"""A whole job on a filesystem of Beam's other than the local one: an object store's double."""

import pathlib

import pytest
from apache_beam.io import filesystem, localfilesystem

from pipelines import build_dataset
from pipelines.logs import files
from sitn_tf import schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs

STORE: dict[str, pathlib.Path] = {}


class ObjectStore(filesystem.FileSystem):
    """store://... as an object store has it: names with slashes, and no folders."""

    local = localfilesystem.LocalFileSystem

    @classmethod
    def scheme(cls):
        return "store"

    def _path(self, url):
        return STORE["root"] / url.removeprefix("store://")

    def _names(self, prefix):
        return [u for u in self._urls() if u.startswith(prefix)]

    def _urls(self):
        root = STORE["root"]
        return sorted(f"store://{p.relative_to(root)}" for p in root.rglob("*") if p.is_file())

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def has_dirs(self):
        return False

    def mkdirs(self, path):
        raise NotImplementedError("an object store has no folders")

    def _list(self, prefix):
        for url in self._names(prefix):
            yield filesystem.FileMetadata(url, self._path(url).stat().st_size)

    def create(self, path, mime_type="", compression_type="auto"):
        self._path(path).parent.mkdir(parents=True, exist_ok=True)
        return open(self._path(path), "wb")

    def open(self, path, mime_type="", compression_type="auto"):
        return open(self._path(path), "rb")

    def rename(self, sources, destinations):
        for old, new in zip(sources, destinations, strict=True):
            names = self._names(old) if old.endswith("/") else [old]
            for name in names:
                target = self._path(name.replace(old, new, 1))
                target.parent.mkdir(parents=True, exist_ok=True)
                self._path(name).rename(target)

    def exists(self, path):
        return path in self._urls()

    def delete(self, paths):
        for path in paths:
            for name in self._names(path) if path.endswith("/") else [path]:
                self._path(name).unlink()

    def copy(self, sources, destinations):
        raise NotImplementedError

    def size(self, path):
        return self._path(path).stat().st_size

    def last_updated(self, path):
        raise NotImplementedError

    def checksum(self, path):
        raise NotImplementedError

    def metadata(self, path):
        return filesystem.FileMetadata(path, self.size(path))


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
