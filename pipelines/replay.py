"""Makes logs again of the lines that a job rejected, to be mended and given to it once more.

    python -m pipelines.replay --data_dir=data --output=again
    ... mend again/source.jsonl ...
    python -m pipelines.build_dataset --source_log='logs/*.jsonl,again/source.jsonl' ...

Lines come out byte for byte as they were, one file for each log and kind of file.
"""

import contextlib
import csv
import io
import json
import pathlib
from collections import Counter
from typing import Any

from absl import flags

from sitn_tf import cli, schema
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", "", "the data set directory", flag_values=FLAGS)
flags.DEFINE_string("output", "", "folder for the logs", flag_values=FLAGS)
flags.DEFINE_string("reason", "", "only lines rejected for this reason", flag_values=FLAGS)


def replay(data_dir: pathlib.Path, output: pathlib.Path, reason: str = "") -> Counter[str]:
    """Writes the rejected lines; how many by file name, and under "cut" those not kept whole."""
    written: Counter[str] = Counter()
    output.mkdir(parents=True, exist_ok=True)
    streams: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for path in sorted((data_dir / "rejects").glob("part-*.jsonl")):
            for entry in map(json.loads, stack.enter_context(open(path, encoding="utf-8"))):
                if reason and entry["reason"] != reason:
                    continue
                if entry.get("cut"):
                    written["cut"] += 1
                    continue
                name = f"{entry['domain']}.{'csv' if 'columns' in entry else 'jsonl'}"
                if name not in streams:
                    streams[name] = stack.enter_context(open(output / name, "wb"))
                    streams[name].write(_header(entry))
                streams[name].write(_line(entry) + b"\n")
                written[name] += 1
    return written


def _header(entry: dict[str, Any]) -> bytes:
    if "columns" not in entry:
        return b""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(entry["columns"])
    return text.getvalue().encode()


def _line(entry: dict[str, Any]) -> bytes:
    return bytes.fromhex(entry["line_hex"]) if "line_hex" in entry else entry["line"].encode()


def main(_: list[str]) -> None:
    for name in ("data_dir", "output"):
        if not FLAGS[name].value:
            raise InputError(f"--{name} is missing: see --help")
    schema.read_manifest(FLAGS.data_dir)
    written = replay(pathlib.Path(FLAGS.data_dir), pathlib.Path(FLAGS.output), FLAGS.reason)
    for name, count in sorted(written.items()):
        print(f"{name}: {count:,} lines")
    if not written:
        print("no line was rejected")


if __name__ == "__main__":
    cli.run(main, FLAGS)
