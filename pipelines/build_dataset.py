"""Turns the click logs of two domains into a data set directory.

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
import difflib
import io
import json
import logging
import os
import re
import shlex
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from absl import flags
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines import presets
from pipelines.job import assembly, build_records, extension, progress
from pipelines.job.options import ItemFields, Job
from pipelines.job.workspace import Work
from pipelines.logs import event_parser, files, line_blocks
from sitn_tf import cli, schema
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
_LOCAL_RUNNER = "FnApiRunner"
_BEAM_LOGGERS = (
    "apache_beam.runners.common",
    "apache_beam.runners.worker.sdk_worker",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "apache_beam.runners.portability.local_job_service",
)
_OPTIONS_LOGGER = "apache_beam.options.pipeline_options"
_NO_NEWS = ("InputError", "semi_persistent_dir", "direct_running_mode")
_OWNER_FILE = "owner.json"
_FEW_DESCRIBED = 0.5


def _define_flags() -> None:
    def text(name: str, default: str | None, meaning: str) -> None:
        flags.DEFINE_string(name, default, meaning, flag_values=FLAGS)

    def whole(name: str, default: int | None, meaning: str) -> None:
        flags.DEFINE_integer(name, default, meaning, flag_values=FLAGS)

    def real(name: str, default: float | None, meaning: str) -> None:
        flags.DEFINE_float(name, default, meaning, flag_values=FLAGS)

    text("preset", "", f"flags for well-known logs: {', '.join(presets.PRESETS)}")
    for domain in schema.DOMAINS:
        text(f"{domain}_log", "", f"click logs of the {domain} domain: files or patterns, by comma")
        text(f"{domain}_items", "", f"item files of the {domain} domain; none by default")
        text(f"{domain}_user_field", None, f"user id in the {domain} log, if not --user_field")
        text(f"{domain}_item_field", None, f"item id in the {domain} log, if not --item_field")
        text(f"{domain}_time_field", None, f"time in the {domain} log, if not --time_field")
    text("output", "", "the data set directory to make")
    flags.DEFINE_bool("overwrite", False, "replace what is at --output", flag_values=FLAGS)
    flags.DEFINE_bool(
        "keep_events", False, "keep the events: the data set can be extended", flag_values=FLAGS
    )
    flags.DEFINE_bool(
        "keep_unknown_clicks",
        False,
        "with sampled negatives, keep requests whose clicked item is not of the training period",
        flag_values=FLAGS,
    )
    text("extends", "", "a data set with kept events: the logs are added to those it was made of")
    text("format", "auto", "of the input files: auto (by name), jsonl, csv or parquet")
    text("user_field", "user_id", "field of the user id")
    text("item_field", "item_id", "field of the item id")
    text("time_field", "timestamp", "field of the time")
    text("time_unit", "s", "of the time field: s, ms, us or ns since 1970")
    text("label_field", None, "field that is 1 where an impression in the target log was clicked")
    text("source_label_field", None, "the same for the source log")
    text("request_field", None, "field of the request that shown the impression belongs to")
    text("score_field", None, "field of the score that the target log gives an impression")
    text("rating_field", None, "field of a rating")
    real("min_rating", None, "lower ratings are filtered")
    for name in ("item", "title", "brand", "main_category", "second_category", "categories"):
        default = getattr(ItemFields(), name)
        text(f"items_{name}_field", default, f"field of the {name} in item files")
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Job)}
    text("split", "time", "time, or last: each user's last request tests, the one before validates")
    whole("train_until", None, "Unix seconds: training is before")
    whole("validation_until", None, "Unix seconds: validation is before, test is the rest")
    for name, meaning in {
        "validation_fraction": "of the target clicks, by time",
        "test_fraction": "of the target clicks, by time",
        "stage1_holdout": "share of users that validate stage 1",
        "negative_power": "popularity to this power draws the negatives",
        "max_reject_rate": "share of rejected lines above which the job fails",
    }.items():
        real(name, defaults[name], meaning)
    for name, meaning in {
        "max_history": "longest history kept, the most recent clicks",
        "min_source_history": "requests with fewer source clicks before them are filtered",
        "min_target_history": "requests with fewer target clicks before them are filtered",
        "negatives": "sampled for each click where the log has no impressions",
        "min_item_count": "training clicks an item needs for an id of its own",
        "title_word_min_count": "items whose titles must have a word",
        "title_words_max": "size of the vocabulary of title words",
        "max_user_events": "latest events kept of a user in a domain",
        "max_candidates": "requests with more are filtered",
        "seed": "of everything that is sampled",
        "shards": "parts the users are divided into; more need less memory",
        "block_bytes": "of a log parsed at once",
    }.items():
        whole(name, defaults[name], meaning)


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
        if not values[name].value:
            raise InputError(f"--{name} is missing: see --help")
    if values.source_log and values.source_log == values.target_log:
        raise InputError(
            f"--source_log and --target_log are both {values.source_log}: name a log each"
        )
    named: dict[str, Any] = {
        name: values[name].value
        for name in Job.__dataclass_fields__
        if name in values and name not in ("logs", "items", "output")
    }
    job = Job(
        logs={domain: str(values[f"{domain}_log"].value) for domain in schema.DOMAINS},
        items={domain: str(values[f"{domain}_items"].value) for domain in schema.DOMAINS},
        output=values.output.rstrip("/"),
        formats={domain: _log_format(values, domain) for domain in schema.DOMAINS},
        file_format=values.format,
        item_fields=ItemFields(
            **{n: str(values[f"items_{n}_field"].value) for n in ItemFields.__dataclass_fields__}
        ),
        **named,
    )
    return extension.with_kept_events(job)


def _log_format(values: flags.FlagValues, domain: str) -> event_parser.LogFormat:
    is_target = domain == schema.TARGET
    return event_parser.LogFormat(
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
    """Beam's options; by default and for DirectRunner the local runner itself.

    Beam's DirectRunner first tries to download another runner, so it is not what one asks
    for on a machine without a network.

    Raises:
      InputError: a runner known to give wrong results, or an unknown flag.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), _silent(_OPTIONS_LOGGER):
            options = PipelineOptions(list(arguments))
            known = set(options.get_all_options())
    except SystemExit as error:  # argparse prints its usage, of some hundred lines, and exits
        raise InputError(complaint.getvalue().strip().rsplit("error: ", 1)[-1]) from error
    _check_known(arguments, known)
    standard = options.view_as(StandardOptions)
    runner = (standard.runner or "DirectRunner").rsplit(".", 1)[-1]
    if runner == "DaskRunner":
        raise InputError(
            "--runner=DaskRunner silently gives wrong results for tagged outputs in this "
            "version of Beam: use DirectRunner, DataflowRunner or a portable runner"
        )
    if runner == "DirectRunner":
        standard.runner = _LOCAL_RUNNER
    return options


def _check_known(arguments: Sequence[str], known: set[str]) -> None:
    """
    Raises:
      InputError: a flag that neither this command nor Beam has, or what is no flag at all.
    """
    takes_value = False
    for argument in arguments:
        if not argument.startswith("--"):
            if not takes_value:
                raise InputError(
                    f"unexpected argument {argument!r}: flags are given as --name=value"
                )
            takes_value = False
            continue
        name, equals, _ = argument.removeprefix("--").partition("=")
        takes_value = not equals
        if name not in known and name.removeprefix("no") not in known:
            near = difflib.get_close_matches(name, [*FLAGS, *sorted(known)], n=3, cutoff=0.75)
            remedy = (
                f"did you mean {' or '.join(f'--{n}' for n in near)}?" if near else "see --help"
            )
            raise InputError(
                f"unknown flag --{name}, which neither this command nor Beam has: {remedy}"
            )


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def plan_inputs(job: Job) -> list[tuple[str, str, line_blocks.Unit]]:
    """(domain, "log" or "items", unit) of everything to read.

    Raises:
      InputError: a file is missing, empty or of no known format.
    """
    inputs: list[tuple[str, str, line_blocks.Unit]] = []
    for kind, given in (("log", job.logs), ("items", job.items)):
        for domain in schema.DOMAINS:
            if patterns := given.get(domain):
                units = line_blocks.plan(
                    f"{domain}_{kind}", patterns, job.file_format, job.block_bytes
                )
                inputs += [(domain, kind, unit) for unit in units]
    for domain, kind, unit in inputs:
        if kind == "log" and unit.kind == "csv":
            error = event_parser.no_column(unit.path, unit.columns, job.formats[domain], domain)
            if error:
                raise error
    return inputs


def build(
    pipeline: beam.Pipeline, work: Work, inputs: list[tuple[str, str, line_blocks.Unit]]
) -> None:
    """Adds the job to a pipeline."""
    by_kind = {
        kind: [(domain, unit) for domain, k, unit in inputs if k == kind]
        for kind in ("log", "items")
    }
    pipeline | "Build" >> build_records.BuildRecords(work, by_kind["log"], by_kind["items"])


def execute(job: Job, options: PipelineOptions, *, overwrite: bool = False) -> schema.Manifest:
    """Makes the data set directory and returns its manifest.

    Raises:
      InputError: anything that the user can mend; nothing is left behind then.
    """
    _clear_leftovers(job.output)
    pipeline = _new_pipeline(options)
    files.check_reachable("output", job.output)
    if not overwrite and files.holds_files(job.output):
        raise _already_there(job.output)
    carried = extension.load(job)
    inputs = plan_inputs(job)
    with _staging(job.output) as root:
        work = Work(job, files.join(root, "work"), carried)
        files.make_folder(work.folder)
        blocks = sum(kind == "log" for _, kind, _ in inputs)
        progressing = progress.Progress(work.folder, blocks, job.shards)
        with _plain_errors(), _runner_errors(options), progressing:
            build(pipeline, work, inputs)
            pipeline.run().wait_until_finish()
        manifest = assembly.assemble(work, root, inputs)
        files.delete_tree(work.folder)
        files.delete_file(files.join(root, _OWNER_FILE))
        _publish(root, job.output, manifest, overwrite=overwrite)
    return manifest


def _new_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """An empty pipeline; from here on Beam's filesystems know the options too.

    Raises:
      InputError: there is no such runner, or it lacks options.
    """
    with _runner_errors(options):
        try:
            return beam.Pipeline(_quiet_runner(options), options)
        except ValueError as error:
            runner = options.view_as(StandardOptions).runner
            what, *details = filter(None, map(str.strip, str(error).splitlines()))
            if details:  # the options that validation misses, a line each
                raise InputError(
                    f"--runner={runner} needs other flags: {' '.join(details)} "
                    "See the example in --help"
                ) from error
            raise InputError(f"--runner={runner}: {what}") from error


def _quiet_runner(options: PipelineOptions) -> FnApiRunner | None:
    """The local runner with worker processes of our own; None for any other runner."""
    direct = options.view_as(DirectOptions)
    local = options.view_as(StandardOptions).runner == _LOCAL_RUNNER
    if not local or direct.direct_running_mode != "multi_processing":
        return None
    direct.direct_running_mode = "in_memory"  # else Beam starts workers of its own
    command = f"{shlex.quote(sys.executable)} -m pipelines.job.local_worker"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


@contextlib.contextmanager
def _runner_errors(options: PipelineOptions) -> Iterator[None]:
    """What a runner needs and has not got is told in one line.

    Local runners run the job's own code, whose errors of the same kinds would be bugs.
    """
    runner = options.view_as(StandardOptions).runner
    try:
        yield
    except ImportError as error:
        if runner == _LOCAL_RUNNER:
            raise
        raise InputError(
            f"--runner={runner} needs packages that are not installed ({error}): "
            f"{files.INSTALL_GCP if 'Dataflow' in str(runner) else 'install them'}"
        ) from error
    except NotImplementedError as error:
        if runner == _LOCAL_RUNNER:
            raise
        raise InputError(f"--runner={runner}: {' '.join(str(error).split())}") from error


def _already_there(output: str) -> InputError:
    return InputError(f"--output={output} is there already: give --overwrite or another")


@contextlib.contextmanager
def _staging(output: str) -> Iterator[str]:
    """A folder beside the output that is gone afterwards, unless the process is killed."""
    root = f"{output}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        files.make_folder(root)
        files.write_json(
            files.join(root, _OWNER_FILE), {"host": socket.gethostname(), "pid": os.getpid()}
        )
    except OSError as error:
        with contextlib.suppress(OSError):
            files.delete_tree(root)
        raise InputError(
            f"--output={output} can't be written ({error.strerror or error}): "
            "give a folder that you may write to"
        ) from error
    try:
        yield root
    finally:
        with contextlib.suppress(OSError):  # it has moved to its place
            files.delete_tree(root)


def _clear_leftovers(output: str) -> None:
    """Removes what killed runs for this output left behind, and puts back what one replaced."""
    if not files.is_local(output):
        return
    folder = os.path.dirname(os.path.abspath(output))
    name = os.path.basename(output)
    for entry in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, entry)
        if entry.startswith(f"{name}.tmp-") and _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
        elif entry.startswith(f"{name}.old-"):
            if os.path.exists(output):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.rename(path, output)


def _is_abandoned(path: str) -> bool:
    """Whether the process that owned a staging folder is gone; if unknown, it is not."""
    try:
        with open(os.path.join(path, _OWNER_FILE)) as file:
            owner = json.load(file)
        if owner["host"] != socket.gethostname():
            return False
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def _publish(root: str, output: str, manifest: schema.Manifest, *, overwrite: bool) -> None:
    """The finished folder gets its name; what was there is removed only then.

    Another job may have finished since this one looked, so it looks again.
    An object store has no folder to rename: there the manifest, without which nothing is a
    data set, is written when all other files are in place.

    Raises:
      InputError: the name is taken and not to be overwritten.
    """
    if not overwrite and files.holds_files(output):
        raise _already_there(output)
    if files.is_local(output):
        files.write_text(files.join(root, schema.MANIFEST_FILE), manifest.to_json())
        old = f"{output}.old-{uuid.uuid4().hex[:8]}"
        if overwrite and os.path.exists(output):
            os.rename(output, old)
        try:
            os.rename(root, output)
        except OSError as error:
            if os.path.exists(output):  # another job was quicker by less than a moment
                raise _already_there(output) from error
            raise
        shutil.rmtree(old, ignore_errors=True)
        return
    files.delete_tree(output)
    files.rename_tree(root, output)
    files.write_text(files.join(output, schema.MANIFEST_FILE), manifest.to_json())


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """A InputError raised in a worker reaches the user as one line, not as a traceback."""
    loggers = [logging.getLogger(name) for name in _BEAM_LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_news)
    try:
        yield
    except Exception as error:
        text = str(error) if not isinstance(error, InputError) else f"InputError: {error}"
        found = re.search(r"InputError: (.*?)(?: \[while running|\\n|\n|$)", text)
        if found:
            raise InputError(found.group(1)) from error
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """False for what Beam logs of an error that the user is told in one line, and for chatter."""
    kind = record.exc_info[0] if record.exc_info else None
    text = record.getMessage()
    return kind is not InputError and not any(known in text for known in _NO_NEWS)


def report(manifest: schema.Manifest, output: str, seconds: float) -> str:
    """The table printed at the end."""
    rows = [f"{'':16}{'total':>14}{'used':>14}{'filtered':>14}{'rejected':>14}"]
    details = []
    for what, found in manifest.lines.items():
        filtered, rejected = (sum(found[k].values()) for k in ("filtered", "rejected"))
        rows.append(
            f"{what:16}{found['total']:>14,}{found['used']:>14,}{filtered:>14,}{rejected:>14,}"
        )
        for kind in ("filtered", "rejected"):
            details += [f"  {what} {kind}: {r} {n:,}" for r, n in found[kind].items()]
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
    rows += _described(manifest)
    lines = sum(manifest.lines[d]["total"] for d in schema.DOMAINS if d in manifest.lines)
    rows.append(f"{output} in {seconds:.1f} s ({lines / max(seconds, 1e-9):,.0f} lines/s)")
    rows.append(f"next: python -m sitn_tf.train --stage=1 --data_dir={output} --workdir=RUN")
    return "\n".join(rows[: 1 + len(manifest.lines)] + details + rows[1 + len(manifest.lines) :])


def _described(manifest: schema.Manifest) -> list[str]:
    """How many of the log's items the item files describe, with a warning where few."""
    rows = []
    for domain in schema.DOMAINS:
        entry = manifest.vocabularies[schema.vocabulary_name(domain, schema.ITEM)]
        if "described" in entry:
            described, items = entry["described"], entry["size"] - schema.FIRST_ID
            text = f"{described:,} of {items:,} {domain} items are in the item files"
            few = described < _FEW_DESCRIBED * items
            rows.append(f"WARNING: only {text}: check --{domain}_items" if few else text)
    return rows


def main(arguments: list[str]) -> None:
    """The command line, with what is left over for Beam."""
    _build(arguments)


def _build(arguments: list[str]) -> schema.Manifest:
    began = time.monotonic()
    options = beam_options(arguments)
    job = job_from_flags(FLAGS)
    manifest = execute(job, options, overwrite=FLAGS.overwrite)
    print(report(manifest, job.output, time.monotonic() - began))
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
        yield cli.parse(FLAGS, ["build_dataset", *argv], keep_unknown=True)
    finally:
        FLAGS.unparse_flags()
        for name in FLAGS:
            FLAGS[name].unparse()


if __name__ == "__main__":
    # What workers run must be importable, so nothing that they need lives in this module.
    sys.modules.setdefault("pipelines.build_dataset", sys.modules["__main__"])
    cli.run(main, FLAGS, keep_unknown=True)
