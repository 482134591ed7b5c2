"""A data set under hashed user ids: nothing of it names a user, and all goes on working."""

import io
import json
import sys

import pyarrow as pa
import pytest

from pipelines import build_dataset, hash_user_ids, replay, verify
from pipelines.logs import user_hashes
from sitn_tf import cli, schema
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs

KEY = "a-key-that-nobody-else-has"
BAD = {"user_id": "person-of-a-reject", "item_id": "s1", "timestamp": -1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("hashed")
    for seed, domain in enumerate(("source", "target")):
        rows = logs.clicks(seed, 20, 20, 200, domain[0])
        rows = [row | {"user_id": f"person-{row['user_id']}"} for row in rows]
        logs.write_lines(path / f"{domain}.jsonl", [*rows, BAD])
    for name, key in (("key", KEY), ("other", KEY[::-1])):
        (path / name).write_text(f"{key}\n")
    return path


def build(folder, output, *flags):
    named = [f"--{domain}_log={folder}/{domain}.jsonl" for domain in schema.DOMAINS]
    return build_dataset.run(
        [*named, "--shards=2", "--max_reject_rate=0.1", f"--output={folder}/{output}", *flags]
    )


@pytest.fixture(scope="module")
def built(folder):
    build(folder, "data", f"--hash_user_ids={folder}/key", "--keep_events")
    return folder / "data"


def test_no_file_has_a_raw_id_or_the_key(built):
    files = [path for path in built.rglob("*") if path.is_file()]
    texts = {path: path.read_bytes() for path in files}
    for path in files:
        if path.suffix == ".arrow":
            texts[path] += str(pa.ipc.open_file(path).read_all().to_pylist()).encode()
    assert not [p for p, text in texts.items() if b"person-" in text or KEY.encode() in text]
    assert json.loads((built / "manifest.json").read_text())["options"]["hashed_users"] is True


def test_records_have_the_hashes(built):
    hashes = {user_hashes.hashed(f"person-u{user}", KEY.encode()) for user in range(20)}
    users = {r["user_id"] for r in logs.read_records(built, schema.STAGE2, schema.TRAIN)}
    assert users
    assert users <= hashes


def test_rejects_say_where_but_not_what(built, tmp_path):
    [path] = (built / "rejects").glob("part-*.jsonl")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["domain"], e["reason"], e["line"], e["cut"]) for e in entries] == [
        (domain, "negative timestamp", "", True) for domain in schema.DOMAINS
    ]
    assert replay.replay(built, tmp_path) == {"cut": 2}


def test_verification_takes_the_key(built, folder):
    key = user_hashes.read_key(f"{folder}/key")
    assert verify.Verifier(str(built), key).verify(with_logs=True).wrong == {}
    assert verify.Verifier(str(built)).verify(with_logs=False).wrong == {}
    with pytest.raises(InputError, match=r"^hash_user_ids is not the key that .* was made with: "):
        verify.Verifier(str(built), key[::-1]).verify(with_logs=True)
    with pytest.raises(InputError, match=r"are hashed: give hash_user_ids=KEYFILE, or logs=False"):
        verify.Verifier(str(built)).verify(with_logs=True)


def test_a_data_set_of_hashes_is_extended_with_a_key_only(built, folder):
    with pytest.raises(InputError, match=r"--hash_user_ids is given for only one of .*--extends="):
        build(folder, "more", f"--extends={built}")
    another = (
        r"^--hash_user_ids is another key than that of --extends=\S+: each user would be two: g"
    )
    with pytest.raises(InputError, match=another):
        build(folder, "more", f"--extends={built}", f"--hash_user_ids={folder}/other")
    build(folder, "more", f"--extends={built}", f"--hash_user_ids={folder}/key")
    users = {r["user_id"] for r in logs.read_records(folder / "more", schema.STAGE2, schema.TRAIN)}
    assert {len(user) for user in users} == {user_hashes.HEX_DIGITS}


def test_the_command_hashes_lines(folder, monkeypatch, capsys):
    given = io.BytesIO(b"person-u1\nperson-u2\r\n\xff\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given))
    hash_user_ids.FLAGS.unparse_flags()
    cli.parse(hash_user_ids.FLAGS, ["hash_user_ids", f"--hash_user_ids={folder}/key"])
    with pytest.raises(InputError, match=r"^line 3 of standard input is not UTF-8, as all user id"):
        hash_user_ids.main([])
    expected = [user_hashes.hashed(user, KEY.encode()) for user in ("person-u1", "person-u2")]
    assert capsys.readouterr().out.splitlines() == expected
