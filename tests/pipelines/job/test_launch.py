"""What a job on a cluster says before it starts, and when it does not start."""

import dataclasses
import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.job import inputs, launch
from pipelines.job.workspace import Carried
from pipelines.logs import line_blocks
from pipelines.logs.line_blocks import Unit
from pipelines.options import Job
from pipelines.records.shards import Part
from sitn_tf import schema
from sitn_tf.errors import InputError

GB = 10**9
JOB = Job(logs={}, output="gs://b/out", shards=2000, shuffle="beam")
UNITS = [inputs.Input("source", "log", Unit("gs://b/s.jsonl", 0, "jsonl", False, i, i + 1,
                                            file_bytes=8 * GB)) for i in range(500)]  # fmt: skip
UNITS.append(
    inputs.Input("target", "log", Unit("gs://b/t.gz", 0, "jsonl", True, 0, 9, file_bytes=GB // 5))
)
UNITS.append(
    inputs.Input("target", "items", Unit("gs://b/i", 0, "csv", False, 0, 9, file_bytes=GB))
)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.csv.gz", "a.parquet"])
def test_a_file_travels_whole_and_is_divided_as_planned(tmp_path, name):
    path, rows = tmp_path / name, pa.table({"user": [f"u{i}" for i in range(90)]})
    if name.endswith("parquet"):
        pq.write_table(rows, path, row_group_size=20)
    else:
        text = "".join(f"{user}\n" for user in ["user", *rows["user"].to_pylist()]).encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (tmp_path / f"b{name}").write_bytes(path.read_bytes())
    planned = line_blocks.plan("logs.source", f"{tmp_path}/*", "auto", 50)
    # of 355 bytes, five of them the header of the CSV
    assert len(planned) == {"a.jsonl": 16, "a.csv": 14, "a.csv.gz": 2, "a.parquet": 10}[name]
    whole = inputs.whole_files(planned)
    assert [unit.path for unit in whole] == [str(path), str(tmp_path / f"b{name}")]
    assert [unit for one in whole for unit in line_blocks.units_of(one, 50)] == planned


def test_what_is_said_and_where(capsys):
    # 8 GB of 80 bytes a line and 0.2 GB of 16 gzipped ones; 200 MiB and six blocks of 16 MiB and
    # three windows of 64 MiB, which is more than 56,250 events of 190 bytes
    launch.announce(JOB, "FlinkRunner", UNITS, Carried())
    assert capsys.readouterr().err == (
        "FlinkRunner: 9.2 GB to read, 501 blocks (a gzipped file is one) of some 112,500,000 "
        "lines, 2,000 shards of some 56,250 events; a worker needs some 488 MiB, and 60 bytes for "
        "each item with an id\n"
    )
    launch.announce(dataclasses.replace(JOB, shards=1), "FnApiRunner", UNITS, Carried())
    assert capsys.readouterr().err == ""


def test_shards_that_do_not_fit(capsys):
    few = dataclasses.replace(JOB, shards=4)
    with pytest.raises(InputError) as caught:
        launch.announce(few, "DataflowRunner", UNITS, Carried())
    # 28,125,000 events of 190 bytes, and 200 MiB
    assert str(caught.value) == (
        "shards=4 does not fit: 4 shards of some 28,125,000 events; a worker needs some 5,296 MiB, "
        "more than worker_memory=3072 allows: give shards=1875, one for every 60,000 lines"
    )
    assert "DataflowRunner" in capsys.readouterr().err
    launch.announce(dataclasses.replace(few, worker_memory=5296), "DataflowRunner", UNITS,
                    Carried())  # fmt: skip
    carried = Carried(events=((0, Part("source", "p", 0, 60_000_000, (-1, 0))),))
    with pytest.raises(InputError, match="shards=2875, one for"):
        launch.announce(few, "DataflowRunner", UNITS, carried)


def test_blocks_that_do_not_fit():
    large = dataclasses.replace(JOB, block_bytes=1 << 30)
    with pytest.raises(InputError, match=r"give smaller block_bytes, or the worker_memory that"):
        launch.announce(large, "FlinkRunner", UNITS, Carried())


def test_files_that_no_worker_of_dataflow_reaches():
    launch.check_paths(JOB, "FlinkRunner")  # which may have a shared folder
    of_bucket = dataclasses.replace(
        JOB, logs={domain: f"gs://b/{domain}" for domain in schema.DOMAINS}, output="gs://b/out"
    )
    launch.check_paths(of_bucket, "DataflowRunner")
    for option, job in (
        ("output=out", dataclasses.replace(of_bucket, output="out")),
        ("logs.source=s", dataclasses.replace(of_bucket, logs={"source": "s", "target": "gs://b"})),
        ("items.source=i", dataclasses.replace(of_bucket, items={"source": "i"})),
        ("items.source=i", dataclasses.replace(of_bucket, items={"source": "gs://b/1, i"})),
        ("title_model=m", dataclasses.replace(of_bucket, title_model="m")),
    ):
        with pytest.raises(InputError, match=f"^{option} is on this machine.*gs:// name"):
            launch.check_paths(job, "DataflowRunner")


def test_who_gets_the_key_is_said(capsys):
    hashed = dataclasses.replace(JOB, hashed_users=True, shards=2000)
    launch.announce(hashed, "FlinkRunner", UNITS, Carried())
    assert "gets the key of hash_user_ids in the job's request" in capsys.readouterr().err
