import pytest

from sitn_tf.studies.run_logs import last_words


@pytest.mark.parametrize(
    ("said", "repeated"),
    [
        ("epoch 1\nerror: --x=1 is not 2\n", "error: --x=1 is not 2"),
        ("epoch 1\nKilled\n\n", "Killed"),
        ("", "it said nothing"),
        ("== began 1\nerror: the disk is full\n== began 2\nValueError: x\n", "ValueError: x"),
        ("== began 1\nerror: the disk is full\n== began 2\n", "it said nothing"),
    ],
)
def test_the_last_words_are_of_the_last_time(tmp_path, said, repeated):
    (tmp_path / "log.txt").write_text(said)
    assert last_words(tmp_path / "log.txt") == repeated
