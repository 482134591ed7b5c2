import json

from sitn_tf.studies import runs


def test_a_runs_parameters_and_lost_seconds(tmp_path):
    """8 x 16 and 16 and 1 (a scalar) of 145; a race of 30 s whose winner took 12 s."""
    started = {
        "init": "x",
        "lift": None,
        "restored": ["a/b:0 [8, 16]"],
        "fresh": ["c:0 [16]", "d:0 []"],
    }
    (tmp_path / "initialization.json").write_text(json.dumps(started))
    assert runs._parameters(tmp_path) == 145
    assert runs._lost_seconds(tmp_path) == {}
    raced = {
        "seconds": 30.0,
        "winner": "a",
        "starts": {"a": {"seconds": 12.0}, "b": {"seconds": 18.0}},
    }
    (tmp_path / "race.json").write_text(json.dumps(raced))
    assert runs._lost_seconds(tmp_path) == {"race": 18.0}
