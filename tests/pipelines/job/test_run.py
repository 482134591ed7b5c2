"""The job called from Python: options in, a manifest out, errors that name the options."""

import dataclasses

import pytest

from pipelines import build_dataset
from pipelines.job import run
from pipelines.logs.log_format import LogFormat
from pipelines.options import Job
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs


@pytest.fixture
def job(tmp_path):
    logs.two_logs(tmp_path)
    return Job(
        logs={"source": f"{tmp_path}/source.jsonl", "target": f"{tmp_path}/target.jsonl.gz"},
        output=f"{tmp_path}/out/",
        shards=2,
    )


def test_python_builds_what_the_command_builds(job, tmp_path):
    manifest = run.build_dataset(job)
    flags = [*logs.flags_of(tmp_path), "--shards=2", f"--output={tmp_path}/flags"]
    assert manifest.dataset_hash == build_dataset.run(flags).dataset_hash
    with pytest.raises(InputError, match=r"output=\S*out is there already: give overwrite=True"):
        run.build_dataset(job)


def test_errors_name_options_and_the_command_its_flags(job, tmp_path):
    who = {domain: LogFormat(user="who") for domain in ("source", "target")}
    with pytest.raises(InputError, match=r"more than max_reject_rate=0.01 allows: missing field who"
                       r": \d+ .*: check formats.source.user; that line has"):  # fmt: skip
        run.build_dataset(dataclasses.replace(job, formats=who))
    with pytest.raises(InputError, match=r"more than --max_reject_rate=0.01 allows: missing f"
                       r".*: check --source_user_field \(or --user_field\); that"):  # fmt: skip
        build_dataset.run([*logs.flags_of(tmp_path), "--user_field=who", f"--output={tmp_path}/o"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 0}, "shards=0 is not at least 1"),
        ({"file_format": "xml"}, "file_format=xml is not one of: auto, jsonl, csv, parquet"),
        ({"train_until": 5}, "train_until and validation_until go together: give both or none"),
        (
            {"train_until": 1_600_000_000_000, "validation_until": 1_610_000_000_000},
            "validation_until=1610000000000 is past 4102444800, the latest time that a log may "
            "have: cutoffs are in seconds since 1970, whatever the unit of the logs",
        ),
        (
            {"formats": {"target": LogFormat(request="r")}},
            "formats.target.request and formats.target.score describe impressions: "
            "give formats.target.label too",
        ),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError) as caught:
        Job(logs={}, output="out", **options)
    assert str(caught.value) == message


def test_a_log_that_is_not_there(job):
    with pytest.raises(InputError, match=r"logs\.source=none matches no file: check the path"):
        run.build_dataset(dataclasses.replace(job, logs={**job.logs, "source": "none"}))
