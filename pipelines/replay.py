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
from collections.abc import Iterator
from typing import Any

from absl import flags

from sitn_tf import cli, schema, whole_files
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", "", "the data set directory", flag_values=FLAGS)
flags.DEFINE_string("output", "", "folder for the logs", flag_values=FLAGS)
flags.DEFINE_string("reason", "", "only lines rejected for this reason", flag_values=FLAGS)

REJECTS = "rejects"
_REMEDY = "bring the file back, or build the data set again"


def replay(data_dir: pathlib.Path, output: pathlib.Path, reason: str = "") -> Counter[str]:
    """Writes the rejected lines; how many by file name, and under "cut" those not kept whole.

    Raises:
      InputError: there is something at `output`, or lines that the manifest counts are not there.
    """
    manifest = schema.read_manifest(data_dir)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise InputError(
            f"output={output} is there already, and may hold lines that were mended", "give another"
        )
    written: Counter[str] = Counter()
    streams: dict[str, Any] = {}
    found = 0
    with whole_files.directory(output) as folder, contextlib.ExitStack() as stack:
        for entry in _rejected(data_dir / REJECTS):
            found += 1
            if reason and entry["reason"] != reason:
                continue
            if entry.get("cut"):
                written["cut"] += 1
                continue
            name = f"{entry['domain']}.{'csv' if 'columns' in entry else 'jsonl'}"
            if name not in streams:
                streams[name] = stack.enter_context((folder / name).open("wb"))
                streams[name].write(_header(entry))
            streams[name].write(_line(entry) + b"\n")
            written[name] += 1
        _check_all(data_dir, manifest, found)
    return written


def _rejected(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("part-*.jsonl")):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    entry = json.loads(line)
                    _ = entry["domain"], entry["reason"], _line(entry)
                except (ValueError, LookupError, TypeError) as error:
                    raise InputError(
                        f"{path} is damaged in line {number} ({error})", _REMEDY
                    ) from error
                yield entry


def _check_all(data_dir: pathlib.Path, manifest: schema.Manifest, found: int) -> None:
    """A data set that extends another counts that one's lines too, and has only its own."""
    told = sum(sum(counts["rejected"].values()) for counts in manifest.lines.values())
    if found < told and not manifest.options.get("extends"):
        raise InputError(
            f"{data_dir / REJECTS} holds {found:,} of the {told:,} lines that were rejected",
            _REMEDY,
        )


def _header(entry: dict[str, Any]) -> bytes:
    if "columns" not in entry:
        return b""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(entry["columns"])
    return text.getvalue().encode()


def _line(entry: dict[str, Any]) -> bytes:
    return bytes.fromhex(entry["line_hex"]) if "line_hex" in entry else entry["line"].encode()


def main(_: list[str]) -> None:
    data_dir, output = (pathlib.Path(cli.require(FLAGS, name)) for name in ("data_dir", "output"))
    written = replay(data_dir, output, FLAGS.reason)
    for name, count in sorted(written.items()):
        print(f"{name}: {count:,} lines")
    if not written:
        print("no line was rejected")


if __name__ == "__main__":
    cli.run(main, FLAGS)
