"""What a replay of rejected lines says where they are not as the job left them."""

import json
import types

import pytest

from pipelines import replay
from sitn_tf import schema
from sitn_tf.errors import InputError

ENTRIES = [
    {"domain": "source", "reason": "malformed json", "line": "{bad"},
    {"domain": "source", "reason": "no item", "line": "{}"},
]


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """Rejects of a data set whose manifest counts two."""
    rejected = {"malformed json": 1, "no item": 1}
    told = types.SimpleNamespace(lines={"source": {"rejected": rejected}}, options={})
    monkeypatch.setattr(schema, "read_manifest", lambda _: told)
    (tmp_path / "data" / "rejects").mkdir(parents=True)
    lines = "".join(json.dumps(entry) + "\n" for entry in ENTRIES)
    (tmp_path / "data" / "rejects" / "part-00000.jsonl").write_text(lines)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"domain": "sour', r"part-00000\.jsonl is damaged in line 1 \(Unterminated string"),
        (b"\xff\xfe\n", r"part-00000\.jsonl is damaged in line 1 \('utf-16"),
        (b'{"domain": "source"}\n', r"part-00000\.jsonl is damaged in line 1 \('reason'\)"),
        (b'{"domain": "source", "reason": "", "line_hex": "0x"}\n', r"in line 1 \(non-hexadecimal"),
        (b"[]\n", r"part-00000\.jsonl is damaged in line 1 \(list indices"),
        (json.dumps(ENTRIES[0]).encode(), r"rejects holds 1 of the 2 lines that were rejected: b"),
        (b"", r"rejects holds 0 of the 2 lines that were rejected: bring the file back"),
    ],
)
def test_damaged_rejects_are_named_and_nothing_is_written(data_dir, tmp_path, content, told):
    (data_dir / "rejects" / "part-00000.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=told):
        replay.replay(data_dir, tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_lines_that_were_mended_are_not_replaced(data_dir, tmp_path):
    assert replay.replay(data_dir, tmp_path / "again", reason="no item") == {"source.jsonl": 1}
    with pytest.raises(InputError, match="again is there already, and may hold lines that were m"):
        replay.replay(data_dir, tmp_path / "again")
    assert (tmp_path / "again" / "source.jsonl").read_bytes() == b"{}\n"
