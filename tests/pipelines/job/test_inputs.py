"""What is read, before anything is."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.job import inputs
from pipelines.logs import event_parser
from pipelines.options import Job
from sitn_tf.errors import InputError


def planned(folder, **given):
    for name, text in (
        ("twice.csv", "user_id,item_id,timestamp,item_id\nu,a,5,b\n"),
        ("once.csv", "user_id,item_id,timestamp,x,x\nu,a,5,,\n"),
    ):
        (folder / name).write_text(text)
    paths = {what: {d: f"{folder}/{n}" for d, n in names.items()} for what, names in given.items()}
    return inputs.plan(Job(paths.get("logs", {}), "out", items=paths.get("items", {})))


@pytest.mark.parametrize("what", ["logs", "items"])
def test_a_column_that_is_read_and_there_twice_is_refused(tmp_path, what):
    assert len(planned(tmp_path, **{what: {"source": "once.csv"}})) == 1
    told = r"^\S+twice.csv has 2 columns item_id: which counts can't be told: rename the others$"
    with pytest.raises(InputError, match=told):
        planned(tmp_path, **{what: {"source": "twice.csv"}})


def test_a_parquet_log_with_a_column_twice_is_refused(tmp_path):
    row = [pa.array([name]) for name in ("u", "a", "b")] + [pa.array([5])]
    names = ["user_id", "item_id", "item_id", "timestamp"]
    pq.write_table(pa.Table.from_arrays(row, names), tmp_path / "twice.parquet")
    [log] = planned(tmp_path, logs={"source": "twice.parquet"})
    job = Job({}, "out")
    with pytest.raises(InputError, match=r"twice\.parquet has 2 columns item_id: "):
        list(event_parser.parse_unit(log.unit, job.formats["source"], 1000, "source"))
