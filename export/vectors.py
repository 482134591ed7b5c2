"""A stage-1 run → user vectors, item vectors and interest clusters for retrieval.

    python -m export.vectors --run_dir=RUN/stage1 --output=VECTORS
    python -m export.vectors --vectors=VECTORS --user=USER [--top=10] [--index=faiss]

Everything lies in the space of the contrast (Eq. 2), as unit rows. An item's vector is the
instance of a history of that item alone, so users and items of both domains can be compared
by dot product. Files, each row by row as Parquet and, for the vectors, as NumPy:

    items.<domain>.parquet  items.<domain>.npy   item, title, vector; row r is id r + 2
    users.parquet  users.<domain>.npy            user_id, source, target; zeros if no history
    clusters.parquet                             domain, granularity (K), cluster, vector
    vectors.json  checksums.json                 run, data set, sizes; SHA-256 of the files
"""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from sitn_tf import checksums, cli, quiet, schema, whole_files
from sitn_tf.errors import InputError, first_line

if TYPE_CHECKING:
    from sitn_tf.item_tables import ItemTable

FLAGS = flags.FlagValues()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Stage-1 run directory.", flag_values=FLAGS)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Data set of the run, if it has moved.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write.", flag_values=FLAGS)
_VECTORS = flags.DEFINE_string("vectors", None, "Directory of vectors to ask.", flag_values=FLAGS)
_USER = flags.DEFINE_string(
    "user", None, "Raw id: find this user's nearest target items.", flag_values=FLAGS
)
_TOP = flags.DEFINE_integer("top", 10, "How many items are found.", 1, flag_values=FLAGS)
_INDEX = flags.DEFINE_enum(
    "index", "brute_force", ["brute_force", "faiss"], "What finds them.", flag_values=FLAGS
)

INFO_FILE = "vectors.json"

ROWS_A_GROUP = 1 << 16
"""Of the items' Parquet files; bounds what lies in memory."""

Search = Callable[[np.ndarray], tuple[np.ndarray, list[list[str]]]]
"""Queries `[Q, D]` → scores `[Q, top]` and names of items, best first."""


def main(_: list[str]) -> None:
    """Writes vectors, or answers from written ones."""
    if _VECTORS.value is not None:
        if _USER.value is None:
            raise InputError("--user is missing: name a user of users.parquet")
        quiet.import_tensorflow()
        folder = pathlib.Path(_VECTORS.value)
        print(nearest_items(folder, _USER.value, _TOP.value, _INDEX.value))
        return
    if _RUN_DIR.value is None or _OUTPUT.value is None:
        raise InputError("give --run_dir=RUN/stage1 --output=VECTORS, or --vectors and --user")
    output = pathlib.Path(_OUTPUT.value)
    quiet.import_tensorflow()
    info = write_vectors(pathlib.Path(_RUN_DIR.value), output, _DATA_DIR.value)
    print(
        f"wrote {output}: {info['users']} users, {info['items']['source']} source and "
        f"{info['items']['target']} target items, {info['clusters']} clusters of D = {info['dim']}"
    )
    words = f"--vectors={output}", f"--user={info['example_user']}"
    print("next:", cli.shell("export.vectors", *words))


def write_vectors(
    run_dir: pathlib.Path, output: pathlib.Path, data_dir: str | pathlib.Path | None = None
) -> dict[str, Any]:
    """Writes the directory, whole or not at all, and returns what vectors.json says.

    Raises:
      InputError: no finished stage-1 run, no data set of it, or `output` exists.
    """
    from sitn_tf import trained_models
    from sitn_tf.evaluation import instances

    if not run_dir.is_dir():
        raise InputError(
            f"run_dir={run_dir} is not a directory",
            "train one with python -m sitn_tf.train --stage=1",
        )
    if output.exists():
        raise InputError(f"output={output} exists", "name another, or remove it")
    run = trained_models.load_pretrainer(run_dir, data_dir)
    with whole_files.directory(output) as unfinished:
        for domain, table in run.tables.items():
            parts = instances.parts_of_item_instances(run.model, domain, table.size)
            _write_items(unfinished, parts, table)
        users = [
            instances.read_users(run.model, run.data_dir, split) for split in schema.STAGE1_SPLITS
        ]
        ids = [user for part in users for user in part.ids]
        unit = {
            domain: np.concatenate([instances.unit(part.instances[domain]) for part in users])
            for domain in schema.DOMAINS
        }
        _write_users(unfinished, ids, unit)
        described = {
            "run_dir": str(run_dir),
            "dataset_hash": run.info.dataset_hash,
            "dim": run.config.model.embedding_dim,
            "items": {d: t.size - schema.FIRST_ID for d, t in run.tables.items()},
            "users": len(ids),
            "example_user": ids[0] if ids else None,
            "clusters": _write_clusters(unfinished, instances.prototypes(run.model)),
        }
        whole_files.write_json(unfinished / INFO_FILE, described)
        checksums.write(unfinished)
    return described


def _write_items(folder: pathlib.Path, parts: Iterable[np.ndarray], table: "ItemTable") -> None:
    """Both files of a domain's items; their vectors are never in memory all at once."""
    path = folder / f"items.{table.domain}.npy"
    whole_files.write_rows(path, parts, table.size - schema.FIRST_ID)
    vectors = np.load(path, mmap_mode="r")
    names = {"item": pa.string(), "title": pa.string(), "vector": _lists(vectors[:1]).type}
    with pq.ParquetWriter(path.with_suffix(".parquet"), pa.schema(names.items())) as writer:
        for first in range(0, len(vectors), ROWS_A_GROUP):
            part = vectors[first : first + ROWS_A_GROUP]
            rows = slice(schema.FIRST_ID + first, schema.FIRST_ID + first + len(part))
            columns = [pa.array(table.ids[rows]), pa.array(table.titles[rows]), _lists(part)]
            writer.write_table(pa.table(columns, names=list(names)))


def _write_users(folder: pathlib.Path, ids: list[str], vectors: dict[str, np.ndarray]) -> None:
    for domain, rows in vectors.items():
        whole_files.write_rows(folder / f"users.{domain}.npy", [rows], len(rows))
    columns = {"user_id": pa.array(ids), **{d: _lists(v) for d, v in vectors.items()}}
    pq.write_table(pa.table(columns), folder / "users.parquet")


def _write_clusters(folder: pathlib.Path, prototypes: Iterable[tuple[str, np.ndarray]]) -> int:
    """The clusters of each domain and granularity; returns how many."""
    domains: list[str] = []
    granularities: list[int] = []
    numbers: list[int] = []
    vectors: list[np.ndarray] = []
    for domain, rows in prototypes:
        domains += [domain] * len(rows)
        granularities += [len(rows)] * len(rows)
        numbers += range(len(rows))
        vectors.append(rows)
    columns = {
        "domain": pa.array(domains, pa.string()),
        "granularity": pa.array(granularities, pa.int32()),
        "cluster": pa.array(numbers, pa.int32()),
        "vector": _lists(np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float32)),
    }
    pq.write_table(pa.table(columns), folder / "clusters.parquet")
    return len(domains)


def _lists(vectors: np.ndarray) -> pa.Array:
    """`[N, D]` → N lists of D float32."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def brute_force(items: np.ndarray, names: Sequence[str], top: int) -> Search:
    """The `top` items of largest dot product, exactly, by TFRS."""
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    index = tfrs.layers.factorized_top_k.BruteForce(k=min(top, len(items)))
    index.index(tf.constant(items), tf.constant(list(names)))

    def search(queries: np.ndarray) -> tuple[np.ndarray, list[list[str]]]:
        scores, nearest = index(tf.constant(queries))
        return scores.numpy(), [[name.decode() for name in row] for row in nearest.numpy()]

    return search


def faiss_flat(items: np.ndarray, names: Sequence[str], top: int) -> Search:
    """The same by FAISS; swap IndexFlatIP for one of its approximate indexes to go larger.

    Raises:
      InputError: FAISS is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise InputError("FAISS is not installed: pip install faiss-cpu") from error
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(np.ascontiguousarray(items, np.float32))

    def search(queries: np.ndarray) -> tuple[np.ndarray, list[list[str]]]:
        scores, rows = index.search(np.ascontiguousarray(queries, np.float32), min(top, len(items)))
        return scores, [[names[row] for row in nearest] for nearest in rows]

    return search


INDEXES: dict[str, Callable[[np.ndarray, Sequence[str], int], Search]] = {
    "brute_force": brute_force,
    "faiss": faiss_flat,
}


def nearest_items(
    folder: pathlib.Path, user: str, top: int, make_index: str = "brute_force"
) -> str:
    """The target items nearest to a user's interests of both domains, as text.

    Args:
      make_index: one of INDEXES.

    Raises:
      InputError: no vectors there or damaged ones, no such user, or FAISS is not installed.
    """
    if not (folder / INFO_FILE).is_file():
        raise InputError(
            f"{folder} holds no vectors, {INFO_FILE} is missing",
            "write them with run_dir=RUN/stage1 and output=VECTORS",
        )
    # Not the users' vectors, of which one row each is read.
    target = f"items.{schema.TARGET}"
    checksums.check(folder, [f"{target}.npy", f"{target}.parquet", "users.parquet", INFO_FILE])
    users = pq.read_table(folder / "users.parquet", columns=["user_id"]).column(0).to_pylist()
    if user not in users:
        raise InputError(f"user={user} is not in {folder / 'users.parquet'}", f"such as {users[0]}")
    row = users.index(user)
    query = np.sum([_row(folder / f"users.{domain}.npy", row) for domain in schema.DOMAINS], axis=0)
    items = pq.read_table(folder / "items.target.parquet", columns=["item", "title"]).to_pydict()
    titles = dict(zip(items["item"], items["title"], strict=True))
    search = INDEXES[make_index](np.load(folder / "items.target.npy"), items["item"], top)
    scores, nearest = search(query[None, :])
    return "\n".join(
        f"{score:.4f}  {item}  {titles[item]}"
        for score, item in zip(scores[0], nearest[0], strict=True)
    )


def _row(path: pathlib.Path, row: int) -> np.ndarray:
    """`[D]`: a row of an array, of which no more is read."""
    try:
        return np.load(path, mmap_mode="r")[row]
    except (ValueError, EOFError, IndexError) as error:
        raise InputError(
            f"{path} is damaged ({first_line(error)})",
            "bring the file back, or write the vectors again with run_dir=RUN/stage1",
        ) from error


if __name__ == "__main__":
    cli.run(main, FLAGS)
