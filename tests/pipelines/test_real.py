"""The real logs, from raw lines to a verified data set (SITN_REAL_DATA names their folder)."""

import pytest

from pipelines import build_dataset, verify

LOGS = {
    "amazon_kitchen_food": ("kitchen", "food", "time", 89_885, 83_663),
    "amazon_book_movie": ("book", "movie", "time", 74_629, 73_576),
    "amazon_toy_game": ("toy", "game", "last", 114_487, 82_871),
}


@pytest.mark.real
@pytest.mark.parametrize("name", LOGS)
def test_real_logs(real_data, tmp_path, name):
    source, target, split, source_lines, target_lines = LOGS[name]
    folder = real_data / name
    manifest = build_dataset.run([
        f"--source_log={folder}/clicks-{source}.jsonl.gz",
        f"--target_log={folder}/clicks-{target}.jsonl.gz",
        f"--source_items={folder}/items-{source}.jsonl.gz",
        f"--target_items={folder}/items-{target}.jsonl.gz",
        f"--split={split}", f"--time_unit={'s' if split == 'time' else 'order'}",
        f"--output={tmp_path}/out",
    ])  # fmt: skip
    assert manifest.lines["source"]["used"] == source_lines
    assert manifest.lines["target"]["used"] == target_lines
    assert verify.Verifier(f"{tmp_path}/out").verify(with_logs=True).wrong == {}
