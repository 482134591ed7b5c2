"""Hashes that stand for user ids."""

import hashlib
import hmac

import pyarrow as pa
import pytest

from pipelines.logs import user_hashes
from pipelines.logs.parsed import Parsed, Reject
from sitn_tf.errors import InputError


def test_the_hash_is_the_first_half_of_hmac_sha256():
    # test case 2 of RFC 4231
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"[:32]
    assert user_hashes.hashed("what do ya want for nothing?", b"Jefe") == expected


@pytest.mark.parametrize("chunks", [[["ü", "b", "ü"]], [["ü"], ["b", "ü"]], [[]]])
def test_users_of_a_block_are_hashed_and_its_rejects_lose_their_text(chunks):
    users = pa.chunked_array(chunks, pa.string())
    items = pa.array([f"i{row}" for row in range(len(users))], pa.string())
    events = pa.table({"item": items, "user": users})
    rejects = [Reject(7, "malformed json", b'{"user_id": "b"')]
    made = user_hashes.hash_users(Parsed(events, 4, {"blank_line": 1}, rejects), b"k" * 16)
    assert made.events.schema == events.schema
    assert made.events["item"].to_pylist() == items.to_pylist()
    expected = [user_hashes.hashed(user, b"k" * 16) for user in users.to_pylist()]
    assert made.events["user"].to_pylist() == expected
    assert made.rejects == [Reject(7, "malformed json", b"", whole=False)]
    assert (made.lines, made.filtered) == (4, {"blank_line": 1})


def test_a_key_is_read_without_the_end_of_its_line(tmp_path):
    (tmp_path / "key").write_text("0123456789abcdef\n")
    assert user_hashes.read_key(str(tmp_path / "key")) == b"0123456789abcdef"


def test_what_is_no_key_is_refused_without_telling_it(tmp_path):
    (tmp_path / "short").write_text("0123456789abcde\n")
    with pytest.raises(InputError, match=r"hash_user_ids=.*short holds 15 bytes.*openssl") as error:
        user_hashes.read_key(str(tmp_path / "short"))
    assert "0123" not in str(error.value)
    with pytest.raises(InputError, match=r"hash_user_ids=.*nowhere: No such file.*openssl"):
        user_hashes.read_key(str(tmp_path / "nowhere"))


def test_no_more_than_a_key_is_read(tmp_path):
    """Of a log that was named by mistake, or of a device without an end."""
    with pytest.raises(InputError, match=r"=/dev/zero holds more than 65536 bytes.*openssl"):
        user_hashes.read_key("/dev/zero")
    (tmp_path / "longest").write_bytes(b"keys" * 16384)
    assert len(user_hashes.read_key(str(tmp_path / "longest"))) == 65536


@pytest.mark.parametrize(("content", "different"), [(bytes(64), 1), (b"0101" * 8, 2)])
def test_a_file_that_was_never_filled_is_no_key(tmp_path, content, different):
    """HMAC pads keys with zeros: one of zeros is no key at all."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(InputError, match=rf"key holds {different} different bytes, .*openssl"):
        user_hashes.read_key(str(tmp_path / "key"))


def test_a_fingerprint_tells_keys_apart():
    # echo -ne '\0' | openssl dgst -sha256 -hmac a-key-that-nobody-else-has
    key = b"a-key-that-nobody-else-has"
    told = user_hashes.fingerprint(key)
    assert told == hmac.new(key, b"\0", hashlib.sha256).hexdigest()[:32]
    assert told != user_hashes.fingerprint(key[::-1])
