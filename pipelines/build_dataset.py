r"""Turns the click logs of two domains into a data set directory.

On one machine:

    python -m pipelines.build_dataset \
        --source_log='logs/shop-*.jsonl.gz' --target_log='logs/feed-*.jsonl.gz' \
        --source_items=shop-items.jsonl.gz --target_items=feed-items.jsonl.gz \
        --output=data

with several processes: --direct_running_mode=multi_processing --direct_num_workers=8

On Dataflow, with logs and output in a bucket:

    python -m pipelines.build_dataset --source_log=gs://... --output=gs://... \
        --runner=DataflowRunner --project=... --region=... \
        --temp_location=gs://... --setup_file=./setup.py

Flags that are not listed here go to Beam.
"""

import contextlib
import dataclasses
import functools
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import facts, option_fields, presets
from pipelines.job import run as job_run
from pipelines.logs import line_counts, user_hashes
from pipelines.logs.line_counts import Account
from pipelines.logs.log_format import LogFormat
from pipelines.options import ItemFields, Job
from pipelines.records import request_rules
from pipelines.records.vocabulary import VocabularyEntry
from sitn_tf import beam_flags, cli, schema
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
_FEW_DESCRIBED = 0.5
_MANY_TOO_SHORT = 0.2


def _define_flags() -> None:
    text = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
    # In this order --help has room for what most need.
    for domain in schema.DOMAINS:
        text(f"{domain}_log", "", f"click logs of the {domain} domain: files or patterns, by comma")
    for domain in schema.DOMAINS:
        text(f"{domain}_items", "", f"item files of the {domain} domain; none by default")
    text("output", "", "the data set directory to make")
    flags.DEFINE_bool("overwrite", False, "replace the data set at --output", flag_values=FLAGS)
    text("preset", "", f"flags for well-known logs: {', '.join(presets.PRESETS)}")
    text("format", "auto", "of the input files: auto (by name), jsonl, csv or parquet")
    fields = {"user": "user id", "item": "item id", "time": "time"}
    for name, meaning in fields.items():
        text(f"{name}_field", getattr(LogFormat(), name), f"field of the {meaning}")
    text("time_unit", "s", "of the time field: s, ms, us or ns since 1970, or order: no times")
    text("label_field", None, "field that is 1 where an impression in the target log was clicked")
    text("request_field", None, "field of the id of the request that an impression belongs to")
    for domain in schema.DOMAINS:
        for name, meaning in fields.items():
            of_domain = f"{meaning} in the {domain} log, if not --{name}_field"
            text(f"{domain}_{name}_field", None, of_domain)
    text("source_label_field", None, "--label_field of the source log")
    text("score_field", None, "field of the score that the target log gives an impression")
    text("rating_field", None, "field of a rating")
    flags.DEFINE_float("min_rating", None, "lower ratings are filtered", flag_values=FLAGS)
    for name, default in dataclasses.asdict(ItemFields()).items():
        text(f"items_{name}_field", default, f"field of the {name} in item files")
    text("hash_user_ids", "", "file of a key: hashes stand for user ids, rejects lose their lines")
    option_fields.define_flags(Job, FLAGS)


_define_flags()


def job_from_flags(values: flags.FlagValues) -> Job:
    """The options, checked.

    Raises:
      InputError: a flag is missing or its value is not accepted.
    """
    if values.preset:
        presets.apply(values, values.preset)
    needed = ("output",) if values.extends else ("source_log", "target_log", "output")
    for name in needed:
        cli.require(values, name)
    if values.source_log and values.source_log == values.target_log:
        raise InputError(
            f"--source_log and --target_log are both {values.source_log}: name a log each"
        )
    named: dict[str, Any] = {
        name: values[name].value for name in Job.__dataclass_fields__ if name in values
    }
    return Job(
        logs={domain: str(values[f"{domain}_log"].value) for domain in schema.DOMAINS},
        items={domain: str(values[f"{domain}_items"].value) for domain in schema.DOMAINS},
        formats={domain: _log_format(values, domain) for domain in schema.DOMAINS},
        file_format=values.format,
        item_fields=ItemFields(
            **{n: str(values[f"items_{n}_field"].value) for n in ItemFields.__dataclass_fields__}
        ),
        **named,
    )


def _log_format(values: flags.FlagValues, domain: str) -> LogFormat:
    is_target = domain == schema.TARGET
    return LogFormat(
        user=values[f"{domain}_user_field"].value or values.user_field,
        item=values[f"{domain}_item_field"].value or values.item_field,
        time=values[f"{domain}_time_field"].value or values.time_field,
        label=values.label_field if is_target else values.source_label_field,
        request=values.request_field if is_target else None,
        score=values.score_field if is_target else None,
        rating=values.rating_field,
        min_rating=values.min_rating,
        time_unit=values.time_unit,
    )


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options.

    Raises:
      InputError: an unknown flag, or a runner known to give wrong results.
    """
    options = beam_flags.options(arguments, FLAGS)
    job_run.check_runner(options)
    return options


def report(manifest: schema.Manifest, output: str, seconds: float) -> str:
    """The table printed at the end."""
    rows = [f"{'':16}{'total':>14}{'used':>14}{'filtered':>14}{'rejected':>14}"]
    details = []
    for what, told in manifest.lines.items():
        ended = facts.from_json(Account, told)
        filtered, rejected = sum(ended.filtered.values()), sum(ended.rejected.values())
        rows.append(f"{what:16}{ended.total:>14,}{ended.used:>14,}{filtered:>14,}{rejected:>14,}")
        for kind, reasons in (("filtered", ended.filtered), ("rejected", ended.rejected)):
            details += [f"  {what} {kind}: {r} {n:,}" for r, n in reasons.items()]
        if ended.period and manifest.has_times:
            details.append(f"  {what}: clicks of {line_counts.days(ended.period)}")
        if ended.merged:
            details.append(f"  {what} used: {ended.merged:,} with another line of their candidate")
    for stage, splits in manifest.records.items():
        rows.append(f"{stage}: " + ", ".join(f"{n:,} {s}" for s, n in splits.items()))
    rows += [
        f"note: {stage} has no {split} records"
        for stage, splits in manifest.records.items()
        for split, count in splits.items()
        if not count
    ]
    sizes = {n: e["size"] for n, e in manifest.vocabularies.items() if e["size"] > schema.FIRST_ID}
    rows.append("ids: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    rows += [*_described(manifest), *_too_short(manifest)]
    if manifest.vectors:
        having = manifest.vectors["items"]
        rows.append(
            "vectors: " + ", ".join(f"{n:,} {domain} items" for domain, n in having.items())
        )
        rows += [f"note: no {d} item has a vector" for d in schema.DOMAINS if d not in having]
    lines = sum(manifest.lines[d]["total"] for d in schema.DOMAINS if d in manifest.lines)
    rows.append(f"{output} in {seconds:.1f} s ({lines / max(seconds, 1e-9):,.0f} lines/s)")
    following = cli.shell("sitn_tf.train", "--stage=1", f"--data_dir={output}", "--workdir=RUN")
    rows.append(f"next: {following}")
    return "\n".join(rows[: 1 + len(manifest.lines)] + details + rows[1 + len(manifest.lines) :])


def _described(manifest: schema.Manifest) -> list[str]:
    """How many of the log's items the item files describe, with a warning where few."""
    rows = []
    for domain in schema.DOMAINS:
        name = schema.vocabulary_name(domain, schema.ITEM)
        entry = facts.from_json(VocabularyEntry, manifest.vocabularies[name])
        if entry.described is not None:
            items = entry.size - schema.FIRST_ID
            text = f"{entry.described:,} of {items:,} {domain} items are in the item files"
            few = entry.described < _FEW_DESCRIBED * items
            rows.append(f"WARNING: only {text}: check --{domain}_items" if few else text)
    return rows


def _too_short(manifest: schema.Manifest) -> list[str]:
    """The flags that leave out many of the target's requests for their short histories."""
    asked = facts.from_json(Account, manifest.lines["requests"])
    rows = []
    for domain in schema.DOMAINS:
        count = asked.filtered.get(request_rules.too_short(domain), 0)
        if count >= _MANY_TOO_SHORT * asked.total:
            flag, value = f"min_{domain}_history", manifest.options[f"min_{domain}_history"]
            rows.append(
                f"note: {count:,} of {asked.total:,} target requests are left out for {domain} "
                f"histories shorter than --{flag}={value}; --{flag}=0 keeps them"
            )
    return rows


def _flags_of_options() -> dict[str, str]:
    """By option of a job, the flag that sets it where it is not simply of its name."""
    named = {"file_format=": "--format=", "runner=": "--runner="}
    named["python -m pipelines.build_dataset --help"] = "--help"
    named |= {
        f"item_fields.{f.name}": f"--items_{f.name}_field" for f in dataclasses.fields(ItemFields)
    }
    for domain in schema.DOMAINS:
        named |= {f"logs.{domain}": f"--{domain}_log", f"items.{domain}": f"--{domain}_items"}
        of_log = {name: f"--{domain}_{name}_field (or --{name}_field)" for name in _OF_BOTH_LOGS}
        of_log |= {name: f"--{name}_field" for name in ("request", "score", "rating")}
        of_log |= {name: f"--{name}" for name in ("min_rating", "time_unit")}
        of_log["label"] = f"--{'' if domain == schema.TARGET else f'{domain}_'}label_field"
        named |= {f"formats.{domain}.{name}": flag for name, flag in of_log.items()}
    return named | {name: f"--{name}" for name in _NAMED_ALONE}


_OF_BOTH_LOGS = ("user", "item", "time")
_NAMED_ALONE = (
    *("train_until", "validation_until", "min_source_history", "min_target_history"),
    "hash_user_ids",
)
"""Options that errors name without a value."""


@contextlib.contextmanager
def _errors_in_flags() -> Iterator[None]:
    """Errors of the job in this command's words: `formats.target.label` as --label_field."""
    flag_of = _flags_of_options()
    option = re.compile(rf"(?<![\w./=-])({'|'.join(map(re.escape, flag_of))})(?:\b|(?<==))( and)?")

    def flag(match: re.Match[str]) -> str:
        name, more = flag_of[match[1]], match[2] or ""
        return (name.split(" (or")[0] if more else name) + more

    try:
        yield
    except InputError as error:
        message, remedy = (option.sub(flag, text) for text in (error.message, error.remedy))
        raise cli.in_flags(InputError(message, remedy), FLAGS) from error


def main(arguments: list[str]) -> None:
    """The command line, with what is left over for Beam."""
    with _errors_in_flags():
        _build(arguments)


def _build(arguments: list[str]) -> schema.Manifest:
    began = time.monotonic()
    options = beam_options(arguments)
    job = job_from_flags(FLAGS)
    key = user_hashes.read_key(FLAGS.hash_user_ids) if FLAGS.hash_user_ids else None
    manifest = job_run.build_dataset(job, options, overwrite=FLAGS.overwrite, user_key=key)
    print(report(manifest, job.output.rstrip("/"), time.monotonic() - began))
    return manifest


def job_of(argv: Sequence[str]) -> Job:
    """The job that flags describe; flags for Beam are left out."""
    with _parsed(argv):
        return job_from_flags(FLAGS)


def run(argv: Sequence[str]) -> schema.Manifest:
    """As the command line, from Python: flags in, manifest out."""
    with _parsed(argv) as rest:
        return _build(rest)


@contextlib.contextmanager
def _parsed(argv: Sequence[str]) -> Iterator[list[str]]:
    """Flags with the values of `argv`, and with their defaults again afterwards."""
    try:
        with _errors_in_flags():
            yield cli.parse(FLAGS, ["build_dataset", *argv], keep_unknown=True)
    finally:
        FLAGS.unparse_flags()
        for name in FLAGS:
            FLAGS[name].unparse()


if __name__ == "__main__":
    # What workers run must be importable, so nothing that they need lives in this module.
    sys.modules.setdefault("pipelines.build_dataset", sys.modules["__main__"])
    cli.run(main, FLAGS, keep_unknown=True)
