"""Makes logs again of the lines that a job rejected, to be mended and given to it once more.

    python -m pipelines.replay --data_dir=data --output=again
    ... mend again/source.jsonl ...
    python -m pipelines.build_dataset --source_log='logs/*.jsonl,again/source.jsonl' ...

Lines come out byte for byte as they were, one file for each log and kind of file, of CSV for each
header (source.csv, source-2.csv); rows of Parquet as JSON.
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

    Where no line was rejected nothing is made.

    Raises:
      InputError: there is something at `output`, lines that the manifest counts are not there, or
        none of them was rejected for the reason.
    """
    manifest = schema.read_manifest(data_dir)
    rejected = sum((Counter(told["rejected"]) for told in manifest.lines.values()), Counter())
    if reason and rejected and reason not in rejected:
        known = ", ".join(repr(name) for name, _ in rejected.most_common())
        raise InputError(f"reason={reason}: no line was rejected for it", f"give one of: {known}")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise InputError(
            f"output={output} is there already, and may hold lines that were mended", "give another"
        )
    written: Counter[str] = Counter()
    if not rejected:
        return written
    streams: dict[str, Any] = {}
    names: dict[tuple[str, ...], str] = {}
    found = 0
    with whole_files.directory(output) as folder, contextlib.ExitStack() as stack:
        for entry in _rejected(data_dir / REJECTS):
            found += 1
            if reason and entry["reason"] != reason:
                continue
            if entry.get("cut"):
                written["cut"] += 1
                continue
            name = _name(entry, names)
            if name not in streams:
                streams[name] = stack.enter_context((folder / name).open("wb"))
                streams[name].write(_header(entry))
            streams[name].write(_line(entry) + b"\n")
            written[name] += 1
        if found < rejected.total():
            raise InputError(
                f"{data_dir / REJECTS} holds {found:,} of the {rejected.total():,} lines that were "
                "rejected",
                _REMEDY,
            )
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


def _name(entry: dict[str, Any], names: dict[tuple[str, ...], str]) -> str:
    """The file that a line goes to; `names` are those of CSV by domain and header so far."""
    domain = entry["domain"]
    if "columns" not in entry:
        return f"{domain}.jsonl"
    key = (domain, *entry["columns"])
    if key not in names:
        number = 1 + sum(known[0] == domain for known in names)
        names[key] = f"{domain}.csv" if number == 1 else f"{domain}-{number}.csv"
    return names[key]


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
