"""Input that means harm or has come to harm: a reject or an error, in bounded memory."""

import gzip
import json
import resource
import subprocess
import sys

import numpy as np
import pytest

from pipelines import build_dataset, replay, verify
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs

LINE = '{"user_id": "u1", "item_id": "i1", "timestamp": 1600000000}'
BAD = [
    b'{"user_id": "u\xff", "item_id": "i1", "timestamp": 1600000000}',
    b'{"user_id": "u1", "item_id": "i1", "timestamp": NaN}',
    b'{"user_id": "u1", "item_id": "i1", "timestamp": -5}',
    b'{"user_id": "u1", "item_id": "i1", "timestamp": 99999999999}',
    b'{"user_id": "u\\n1", "item_id": "i1", "timestamp": 1600000000}',
    b'{"user_id": "u1", "item_id": "i1"',
]


@pytest.fixture
def hostile(tmp_path):
    """Flags for logs of which the source has every kind of bad line among good ones."""
    rows = logs.clicks(1, 30, 50, 600, "s")
    lines = [json.dumps(row).encode() for row in rows]
    for place, bad in enumerate(BAD):
        lines.insert(100 * place, bad)
    lines.insert(50, b'{"user_id": "' + b"x" * (4 << 20) + b'"}')
    (tmp_path / "source.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "target-empty.jsonl").write_bytes(b"")
    logs.write_lines(tmp_path / "target-1.jsonl", logs.clicks(2, 30, 40, 600, "t"))
    return [f"--source_log={tmp_path}/source.jsonl", f"--target_log={tmp_path}/target-*.jsonl",
            "--shards=3", f"--output={tmp_path}/out"]  # fmt: skip


def test_bad_lines_are_kept_with_reasons_and_can_be_replayed(hostile, tmp_path):
    manifest = build_dataset.run([*hostile, "--max_reject_rate=0.02", "--block_bytes=1000000"])
    assert manifest.lines["source"]["rejected"] == {
        "control character in user_id": 1, "invalid utf-8": 1, "line too long": 1,
        "malformed json": 1, "negative timestamp": 1, "timestamp in the far future": 1,
        "timestamp is not a finite number": 1,
    }  # fmt: skip
    assert manifest.lines["source"]["total"] == 603 + len(BAD) + 1
    entries = [
        json.loads(line)
        for path in sorted((tmp_path / "out" / "rejects").iterdir())
        for line in path.read_text().splitlines()
    ]
    content = (tmp_path / "source.jsonl").read_bytes()
    for entry in entries:
        raw = bytes.fromhex(entry["line_hex"]) if "line_hex" in entry else entry["line"].encode()
        assert content[entry["position"] :].startswith(raw)
    written = replay.replay(tmp_path / "out", tmp_path / "again")
    assert written == {"source.jsonl": len(BAD), "cut": 1}
    assert sorted((tmp_path / "again" / "source.jsonl").read_bytes().splitlines()) == sorted(BAD)
    some = replay.replay(tmp_path / "out", tmp_path / "some", reason="malformed json")
    assert some == {"source.jsonl": 1}
    assert verify.Verifier(f"{tmp_path}/out").verify(with_logs=True).wrong == {}


def test_too_many_rejects_fail_the_job_with_the_top_reasons(hostile, tmp_path):
    with pytest.raises(InputError) as caught:
        build_dataset.run([*hostile, "--max_reject_rate=0.001"])
    text = str(caught.value)
    assert text.startswith("7 of 610 lines of the source log were rejected, more than "
                           "--max_reject_rate=0.001 allows: ")  # fmt: skip
    assert f"(such as {tmp_path}/source.jsonl at" in text
    assert not (tmp_path / "out").exists()


def peak_of(command):
    """Runs a command; the most memory any of its processes held, in MB."""
    script = (
        "import resource, subprocess, sys\n"
        "status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "assert status == 0, status\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


def write_hot_log(path, events, prefix):
    """One user with `events` events among a thousand others."""
    rng = np.random.default_rng(0)
    with gzip.open(path, "wt", compresslevel=1) as file:
        for begin in range(0, events, 200_000):
            count = min(200_000, events - begin)
            items = rng.integers(0, 20_000, count)
            times = 1_600_000_000 + rng.integers(0, 10_000_000, count)
            file.write("".join(
                f'{{"user_id":"robot","item_id":"{prefix}{i}","timestamp":{t}}}\n'
                for i, t in zip(items.tolist(), times.tolist(), strict=True)
            ))  # fmt: skip
        for row in logs.clicks(1, 1000, 20_000, 5_000, prefix):
            file.write(json.dumps(row) + "\n")


@pytest.mark.slow
def test_a_user_with_ten_million_events(tmp_path):
    write_hot_log(tmp_path / "source.jsonl.gz", 10_000_000, "s")
    write_hot_log(tmp_path / "target.jsonl.gz", 200_000, "t")
    peak = peak_of([
        sys.executable, "-m", "pipelines.build_dataset", f"--output={tmp_path}/out",
        f"--source_log={tmp_path}/source.jsonl.gz", f"--target_log={tmp_path}/target.jsonl.gz",
        "--max_user_events=20000", "--shards=4",
    ])  # fmt: skip
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["lines"]["source"]["filtered"]["user_has_too_many"] > 9_000_000
    assert peak < 1500, f"{peak:.0f} MB"
    print(f"peak {peak:.0f} MB, of which this test's own start is "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")  # fmt: skip
