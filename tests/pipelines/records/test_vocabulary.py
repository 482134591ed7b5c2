"""Vocabularies that are looked up by hashes and kept as text, without an object an item."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records import column_hashes, vocabulary
from sitn_tf import schema

tokens = st.lists(
    st.text(st.characters(exclude_characters="\n", exclude_categories=("Cs",)), max_size=8),
    unique=True,
)


@pytest.mark.parametrize("hashes", ["of their own", "two", "one"])
@given(known=tokens, others=tokens)
def test_ids_are_places_whatever_the_hashes(hashes, known, others):
    asked = pa.array(others + known[::2], pa.string())
    expected = [
        known.index(a) + schema.FIRST_ID if a in known else schema.OOV_ID
        for a in others + known[::2]
    ]
    none = np.zeros(len(known), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        if hashes != "of their own":  # of many items then, known or not, each has the other's
            patch.setattr(
                column_hashes, "hash_strings",
                lambda strings: np.array(
                    [len(s.as_py()) % 2 if hashes == "two" else 7 for s in strings], np.uint64
                ),
            )  # fmt: skip
        found = vocabulary.Vocabulary(pa.array(known, pa.string()), none, none).ids(asked)
    assert found.tolist() == expected


@given(tokens)
def test_a_file_has_a_token_a_line_and_gives_them_back(tmp_path_factory, written):
    path = tmp_path_factory.getbasetemp() / "tokens.txt"
    entry = vocabulary.write_text(str(path), pa.array(written, pa.string()))
    text = "".join(f"{token}\n" for token in written).encode()
    assert path.read_bytes() == text
    assert entry == vocabulary.VocabularyEntry(
        len(written) + schema.FIRST_ID, hashlib.sha256(text).hexdigest()
    )
    assert vocabulary.read_text(str(path)).equals(pa.array(written, pa.string()))


def test_a_part_of_an_array_is_written_as_that_part(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "_FEW_ROWS", 2)
    part = pa.array(["a", "bc", "d", "ef", "g"]).slice(1)
    vocabulary.write_text(str(tmp_path / "tokens.txt"), part)
    assert (tmp_path / "tokens.txt").read_text() == "bc\nd\nef\ng\n"
