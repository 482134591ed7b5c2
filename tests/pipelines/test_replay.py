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


def test_each_header_has_a_file_of_its_own(data_dir, tmp_path):
    entries = [
        {"domain": "source", "reason": "no item", "line": line, "columns": columns}
        for line, columns in (("1,2", ["a", "b"]), ("3,4", ["b", "a"]), ("5,6", ["a", "b"]))
    ]
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (data_dir / "rejects" / "part-00000.jsonl").write_text(lines)
    assert replay.replay(data_dir, tmp_path / "again") == {"source.csv": 2, "source-2.csv": 1}
    assert (tmp_path / "again" / "source.csv").read_text() == "a,b\n1,2\n5,6\n"
    assert (tmp_path / "again" / "source-2.csv").read_text() == "b,a\n3,4\n"


def test_a_reason_that_no_line_has_is_told_with_those_there_are(data_dir, tmp_path):
    told = r"^reason=typo: no line was rejected for it: give one of: 'malformed json', 'no item'$"
    with pytest.raises(InputError, match=told):
        replay.replay(data_dir, tmp_path / "again", reason="typo")
    assert not (tmp_path / "again").exists()


def test_of_a_data_set_that_extends_another_all_rejects_are_asked_for_too(data_dir, tmp_path):
    schema.read_manifest(data_dir).options["extends"] = "yesterday"
    (data_dir / "rejects" / "part-00000.jsonl").write_text("")
    with pytest.raises(InputError, match="holds 0 of the 2 lines that were rejected"):
        replay.replay(data_dir, tmp_path / "again")


def test_without_rejects_nothing_is_made(data_dir, tmp_path):
    schema.read_manifest(data_dir).lines["source"]["rejected"].clear()
    assert replay.replay(data_dir, tmp_path / "again") == {}
    assert not (tmp_path / "again").exists()
