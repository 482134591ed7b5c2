import hashlib
import json

import pytest

from sitn_tf import checksums, schema
from sitn_tf.errors import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "items").mkdir()
    (tmp_path / "items/a.parquet").write_bytes(b"whole")
    told = {"items/a.parquet": hashlib.sha256(b"whole").hexdigest(), "stage1/x": "not looked at"}
    (tmp_path / schema.CHECKSUMS_FILE).write_text(json.dumps(told))
    return tmp_path


def test_what_is_as_it_was_built_passes(folder):
    checksums.check(folder, ("items",))


def test_what_was_written_passes_until_it_is_altered(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"whole")
    checksums.write(tmp_path)
    checksums.check(tmp_path)
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.npy is damaged"):
        checksums.check(tmp_path)


def test_without_checksums_nothing_is_known(tmp_path):
    checksums.check(tmp_path, ("items",))


def test_a_file_that_is_another_is_named(folder):
    (folder / "items/a.parquet").write_bytes(b"whale")
    with pytest.raises(InputError, match=r"items/a.parquet is damaged \(its SHA-256 is not"):
        checksums.check(folder, ("items",))


def test_a_file_that_is_missing_is_named(folder):
    (folder / "items/a.parquet").unlink()
    with pytest.raises(InputError, match=r"items/a.parquet is missing: bring the file back, or"):
        checksums.check(folder, ("items",))


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff"])
def test_damaged_checksums_are_named(folder, content):
    (folder / schema.CHECKSUMS_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"checksums.json is damaged \("):
        checksums.check(folder, ("items",))
