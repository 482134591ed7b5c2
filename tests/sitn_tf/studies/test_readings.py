import dataclasses

from sitn_tf.studies import readings
from sitn_tf.studies.readings import Reading

FIRST = Reading("2026-01-01T00:00:00Z", "table2", "data", "settings")


def added(reads, current, *runs):
    for arm, seed in runs:
        reads = readings.add(reads, current, arm, seed)
    return reads


def test_an_interrupted_study_goes_on_with_its_reading():
    begun = added([], FIRST, ("sitn", 0), ("din", 0))
    later = dataclasses.replace(FIRST, began="2026-01-02T00:00:00Z")
    (only,) = added(begun, later, ("sitn", 1), ("din", 1))
    assert only == dataclasses.replace(FIRST, seeds={"sitn": [0, 1], "din": [0, 1]})


def test_a_run_scored_again_is_a_second_reading():
    both = added([], FIRST, ("sitn", 0), ("din", 0), ("sitn", 0), ("din", 0))
    assert [reading.seeds for reading in both] == [{"sitn": [0], "din": [0]}] * 2


def test_other_settings_or_data_are_a_second_reading():
    begun = added([], FIRST, ("sitn", 0))
    for change in ({"settings_hash": "more seeds"}, {"dataset_hash": "b"}, {"study": "table3"}):
        after = added(begun, dataclasses.replace(FIRST, **change), ("din", 0))
        assert [reading.seeds for reading in after] == [{"sitn": [0]}, {"din": [0]}]


def test_readings_are_kept_and_told(tmp_path):
    assert readings.describe(readings.read(tmp_path)) == ""
    for seed in (1, 0):
        readings.record(tmp_path, FIRST, "sitn", seed)
    once = "The test split was read once in this study: 2026-01-01T00:00:00Z (table2: sitn 0 1)."
    assert readings.describe(readings.read(tmp_path)) == once
    readings.record(tmp_path, FIRST, "sitn", 0)
    told = readings.describe(readings.read(tmp_path))
    assert told.startswith("The test split was read 2 times in this study: 2026-01-01T00:00:00Z (")
    assert told.endswith("; 2026-01-01T00:00:00Z (table2: sitn 0).")
