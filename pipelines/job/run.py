"""A job to its data set directory: `build_dataset(Job(logs={...}, output=...))`."""

import dataclasses
import shlex
import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.job import (
    assembly,
    beam_errors,
    extension,
    inputs,
    launch,
    progress,
    shuffle,
    staging,
    title_model,
)
from pipelines.job.build_records import BuildRecords
from pipelines.job.workspace import Work
from pipelines.logs import files, user_hashes
from pipelines.manifest_entries import LOG
from pipelines.options import Job
from sitn_tf import beam_runner, beam_workers, schema
from sitn_tf.errors import InputError


def build_dataset(
    job: Job,
    options: PipelineOptions | None = None,
    *,
    overwrite: bool = False,
    user_key: bytes | None = None,
) -> schema.Manifest:
    """Makes the data set directory and returns its manifest.

    Args:
      job: what to make of which logs.
      options: Beam's; by default, and for DirectRunner, its local runner runs the job.
      overwrite: replace the data set at `job.output`.
      user_key: hashes user ids; it goes to the workers with the job's request (which
        Dataflow keeps under `temp_location`) and into no other file.

    Raises:
      InputError: anything that the user can mend; nothing is left behind then.
    """
    options = PipelineOptions([]) if options is None else options
    check_runner(options)
    if job.hashed_users and user_key is None:
        raise InputError("hash_user_ids is missing: this job is of hashed users", "give the key")
    job = dataclasses.replace(
        job,
        hashed_users=user_key is not None,
        hashed_with=user_hashes.fingerprint(user_key) if user_key else "",
        # a job that extends goes on keeping events: the next day will want them
        keep_events=job.keep_events or bool(job.extends),
        output=job.output.rstrip("/"),
        shuffle=shuffle.settled(job.shuffle, _runner(options)),
    )
    pipeline = _new_pipeline(options)
    launch.check_paths(job, _runner(options))
    files.check_reachable("output", job.output)
    with staging.locked(job.output):
        staging.clear_leftovers(job.output)
        return _build(job, pipeline, _runner(options), overwrite, user_key)


def _build(
    job: Job, pipeline: beam.Pipeline, runner: str, overwrite: bool, user_key: bytes | None
) -> schema.Manifest:
    staging.check_place(job.output, overwrite=overwrite)
    model = title_model.find(job.title_model) if job.title_model else None
    carried = extension.load(job, model)
    to_read = inputs.plan(job)
    staging.check_apart(job.output, (entry.unit.path for entry in to_read))
    launch.announce(job, runner, to_read, carried)
    with staging.staging(job.output) as root:
        width = inputs.vector_width(job, to_read, carried)
        work = Work(job, files.join(root, "work"), carried, width, model, user_key)
        files.make_folder(work.folder)
        blocks = sum(entry.kind == LOG for entry in to_read)
        progressing = progress.printed(work.folder, blocks, job.shards)
        with beam_errors.of_runner(runner), beam_workers.errors_in_one_line(), progressing:
            add_to(pipeline, work, to_read)
            pipeline.run().wait_until_finish()
        manifest = assembly.assemble(work, root, to_read)
        files.delete_tree(work.folder)
        staging.publish(root, job.output, manifest, overwrite=overwrite)
    return manifest


def add_to(pipeline: beam.Pipeline, work: Work, to_read: list[inputs.Input]) -> None:
    """Adds the job to a pipeline."""
    pipeline | "Build" >> BuildRecords(work, to_read)


def check_runner(options: PipelineOptions) -> None:
    """Sets the local runner where no other is asked for.

    Raises:
      InputError: a runner known to give wrong results.
    """
    if beam_runner.local_by_default(options) == "DaskRunner":
        raise InputError(
            "runner=DaskRunner silently gives wrong results for tagged outputs in this "
            "version of Beam: use DirectRunner, DataflowRunner or a portable runner"
        )


def _runner(options: PipelineOptions) -> str:
    return str(options.view_as(StandardOptions).runner)


def _new_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """An empty pipeline; from here on Beam's filesystems know the options too.

    Raises:
      InputError: there is no such runner, or it lacks options.
    """
    runner = _runner(options)
    with beam_errors.of_runner(runner):
        try:
            return beam.Pipeline(_quiet_runner(options), options)
        except ValueError as error:
            what, *details = filter(None, map(str.strip, str(error).splitlines()))
            if details:  # the options that validation misses, a line each
                raise InputError(
                    f"runner={runner} needs other flags: {' '.join(details)} "
                    "See the example in python -m pipelines.build_dataset --help"
                ) from error
            raise InputError(f"runner={runner}: {what}") from error


def _quiet_runner(options: PipelineOptions) -> FnApiRunner | None:
    """The local runner with worker processes of our own; None for any other runner."""
    direct = options.view_as(DirectOptions)
    local = _runner(options) == beam_runner.LOCAL
    if not local or direct.direct_running_mode != "multi_processing":
        return None
    direct.direct_running_mode = "in_memory"  # else Beam starts workers of its own
    command = f"{shlex.quote(sys.executable)} -m pipelines.job.local_worker"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
