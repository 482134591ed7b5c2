"""Raw user ids to keyed hashes that stand for them: HMAC-SHA256 (RFC 2104).

Who has the key can tell whose hash it is by trying all ids; without it nobody can. The
key is in no file of a data set; of a job on Dataflow it is in the request under `temp_location`.
"""

import dataclasses
import hmac
import pathlib
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.logs import log_format
from sitn_tf.errors import InputError

if TYPE_CHECKING:
    from pipelines.logs.parsed import Parsed  # loads Beam, which hash_user_ids has no use for

HEX_DIGITS = 32
"""Of a hash that are kept: 128 bits, so that not even 10^12 users are likely to share one."""
LEAST_KEY_BYTES, MOST_KEY_BYTES = 16, 1 << 16
LEAST_DISTINCT_BYTES = 4
"""16 random hexadecimal digits have ten; a file that was never filled has one."""


def read_key(path: str) -> bytes:
    """The key in a local file, without white space around it.

    Raises:
      InputError: no such file, or what it holds is too short, too long or too even for a secret.
    """
    remedy = "make one: openssl rand -hex 32 > KEYFILE"
    try:
        with pathlib.Path(path).open("rb") as file:
            key = file.read(MOST_KEY_BYTES + 1).strip()
    except OSError as error:
        raise InputError(f"hash_user_ids={path}: {error.strerror}", remedy) from error
    if len(key) < LEAST_KEY_BYTES:
        raise InputError(
            f"hash_user_ids={path} holds {len(key)} bytes, a key has {LEAST_KEY_BYTES} at least",
            remedy,
        )
    if len(key) > MOST_KEY_BYTES:
        raise InputError(
            f"hash_user_ids={path} holds more than {MOST_KEY_BYTES} bytes, which is no key", remedy
        )
    if len(set(key)) < LEAST_DISTINCT_BYTES:
        raise InputError(
            f"hash_user_ids={path} holds {len(set(key))} different bytes, which anybody would try",
            remedy,
        )
    return key


def fingerprint(key: bytes) -> str:
    """What tells two keys apart and nothing of either: the hash of what no user id can be."""
    return hashed("\0", key)


def hashed(user: str, key: bytes) -> str:
    """What stands for a raw user id: hexadecimal digits."""
    return hmac.digest(key, user.encode(), "sha256").hex()[:HEX_DIGITS]


def hash_users(parsed: "Parsed", key: bytes) -> "Parsed":
    """A block with hashes for its user ids, and without the text of its rejects.

    A rejected line can't be told to be without a user id, so nothing of it is kept.
    """
    column = parsed.events[log_format.USER].combine_chunks().dictionary_encode()
    hashes = pa.array([hashed(user, key) for user in column.dictionary.to_pylist()], pa.string())
    place = parsed.events.schema.get_field_index(log_format.USER)
    events = parsed.events.set_column(
        place, parsed.events.schema.field(place), hashes.take(column.indices)
    )
    rejects = [dataclasses.replace(r, raw=b"", whole=False) for r in parsed.rejects]
    return dataclasses.replace(parsed, events=events, rejects=rejects)
