"""Item tables: a data set's Parquet table of a domain → arrays aligned to item ids."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sitn_tf import schema
from sitn_tf.errors import InputError

ROWS_AT_A_TIME = 1 << 16
"""That are read: bounds what lies in memory beside the table."""


class Strings(Sequence[str]):
    """Strings that Arrow holds: as Python objects those of 68 M items would be 11 GiB.

    Args:
      parts: arrays of strings, one behind the other.
    """

    def __init__(self, parts: Sequence[pa.Array]) -> None:
        self._column = pa.chunked_array(parts, pa.string())

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        found = self._column[place]
        return found.to_pylist() if isinstance(place, slice) else found.as_py()

    def __iter__(self) -> Iterator[str]:
        for part in self._column.iterchunks():
            yield from part.to_pylist()


@dataclasses.dataclass(frozen=True)
class ItemTable:
    """What is known of each item of a domain; row r belongs to item id r.

    Attributes:
      domain: "source" or "target".
      ids: V raw item ids; "" for the two reserved rows.
      titles: V raw titles, "" where unknown.
      count: `[V]` int64, clicks in the training period.
      features: int32 ids by side feature: `[V]`, and `[V, W]` for title words, padded with 0.
      vocabulary_sizes: number of ids of each side feature.
      vectors: `[V, P]` float16, of length 1 or zeros, P the same in both domains; None without.
      shared: side features whose ids mean the same in the other domain's table.
    """

    domain: str
    ids: Sequence[str]
    titles: Sequence[str]
    count: np.ndarray
    features: dict[str, np.ndarray]
    vocabulary_sizes: dict[str, int]
    vectors: np.ndarray | None = None
    shared: frozenset[str] = frozenset()

    @property
    def side_features(self) -> tuple[str, ...]:
        """What is known of items beside their ids, by name."""
        return (*self.features, *(() if self.vectors is None else (schema.VECTOR,)))

    @property
    def described(self) -> np.ndarray:
        """`[V]` bool, whether anything is known of an item beside its id."""
        parts = [ids > schema.OOV_ID for ids in self.features.values()]
        if self.vectors is not None:
            parts.append(self.vectors != 0)
        known = [part.reshape(self.size, -1).any(axis=1) for part in parts]
        return np.any([np.zeros(self.size, bool), *known], axis=0)

    @property
    def size(self) -> int:
        return len(self.ids)


def read_item_table(
    data_dir: str | pathlib.Path,
    manifest: schema.Manifest,
    domain: str,
    side_features: tuple[str, ...],
    title_words: int,
) -> ItemTable:
    """Reads a domain's item table; side features that it has not got are left out.

    Args:
      title_words: W, how many of a title's first words are kept.

    Raises:
      InputError: the table is missing or damaged.
    """
    path = pathlib.Path(data_dir) / schema.item_table_path(domain)
    sizes = {
        name: size
        for name in side_features
        if (size := manifest.vocabulary_size(domain, name)) > schema.FIRST_ID
    }
    try:
        with pq.ParquetFile(path) as file:
            return _read(file, domain, sizes, title_words, schema.VECTOR in side_features)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} can't be read ({error})",
            "build the data set again, or train again if it is a run directory's",
        ) from error


def _read(
    file: pq.ParquetFile, domain: str, sizes: dict[str, int], title_words: int, with_vectors: bool
) -> ItemTable:
    """The table, read some rows at a time: beside what is kept there is never a second whole.

    Args:
      sizes: of the vocabularies of the side features that are read.
      title_words: see `read_item_table`.
      with_vectors: whether the items' vectors are read, if they have some.
    """
    items, known = file.metadata.num_rows, file.schema_arrow
    shapes = {name: (items, title_words) if name == schema.TITLE_WORDS else items for name in sizes}
    features = {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
    count, vectors = np.zeros(items, np.int64), None
    if with_vectors and schema.VECTOR in known.names:
        width = known.field(schema.VECTOR).type.list_size
        vectors = np.zeros((items, width), np.float16)
    read = [schema.ITEM, schema.TITLE, schema.COUNT, *features]
    read += [] if vectors is None else [schema.VECTOR]
    strings: dict[str, list[pa.Array]] = {schema.ITEM: [], schema.TITLE: []}
    first = 0
    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=read):
        rows = slice(first, first + len(batch))
        for name, parts in strings.items():
            parts.append(batch.column(name))
        count[rows] = batch.column(schema.COUNT).to_numpy()
        for name, ids in features.items():
            ids[rows] = _ids(batch.column(name), title_words)
        if vectors is not None:
            vectors[rows] = _vectors(batch.column(schema.VECTOR))
        first = rows.stop
    # Arrow would keep the memory of what was read on the way.
    pa.default_memory_pool().release_unused()
    return ItemTable(
        domain=domain,
        ids=Strings(strings[schema.ITEM]),
        titles=Strings(strings[schema.TITLE]),
        count=count,
        features=features,
        vocabulary_sizes=sizes,
        vectors=vectors,
    )


def _ids(column: pa.Array, title_words: int) -> np.ndarray:
    """A side feature's ids: `[N]` int32, of lists of title words `[N, title_words]`."""
    if not isinstance(column, pa.ListArray):
        return column.to_numpy(zero_copy_only=False)
    flat = column.values.to_numpy(zero_copy_only=False).astype(np.int32)
    return pad_lists(flat, column.offsets.to_numpy(), title_words)


def share_features(
    tables: dict[str, ItemTable], data_dir: str | pathlib.Path
) -> dict[str, ItemTable]:
    """Tables of both domains → the same, with one vocabulary of each feature that both have.

    The source's tokens keep their ids; what only the target has follows, in its order.

    Args:
      data_dir: whose vocabularies the tables' ids are of.

    Raises:
      InputError: a vocabulary is missing or damaged.
    """
    source, target = tables[schema.SOURCE], tables[schema.TARGET]
    shared = frozenset(source.features.keys() & target.features.keys())
    features, sizes = dict(target.features), {}
    for name in shared:
        first = _read_tokens(data_dir, source, name)
        tokens = _read_tokens(data_dir, target, name)
        ids = {t: i for i, t in enumerate(dict.fromkeys([*first, *tokens]), schema.FIRST_ID)}
        joined = np.array([*range(schema.FIRST_ID), *map(ids.__getitem__, tokens)], np.int32)
        features[name], sizes[name] = joined[features[name]], schema.FIRST_ID + len(ids)
    return {
        table.domain: dataclasses.replace(
            table,
            features=of_items,
            vocabulary_sizes=table.vocabulary_sizes | sizes,
            shared=shared,
        )
        for table, of_items in ((source, source.features), (target, features))
    }


def _read_tokens(data_dir: str | pathlib.Path, table: ItemTable, feature: str) -> list[str]:
    """A vocabulary's tokens, in the order of their ids."""
    path = pathlib.Path(data_dir) / schema.vocabulary_path(table.domain, feature)
    expected = table.vocabulary_sizes[feature] - schema.FIRST_ID
    try:
        # Not splitlines(): a token may hold a character that only Python takes for a line end.
        tokens = path.read_bytes().decode().removesuffix("\n").split("\n")
        found = f"it has {len(set(tokens))} tokens, the manifest {expected}"
    except (OSError, UnicodeDecodeError) as error:
        tokens, found = [], str(error)
    if not len(tokens) == len(set(tokens)) == expected:
        raise InputError(
            f"{path} can't be read ({found})",
            "build the data set again, train again if it is a run directory's, or give "
            "items.shared_side_features=false",
        )
    return tokens


def vectors_of(table: pa.Table) -> np.ndarray:
    """The items' vectors of a Parquet item table that has some: `[V, P]` float16."""
    return _vectors(table.column(schema.VECTOR).combine_chunks())


def _vectors(column: pa.FixedSizeListArray) -> np.ndarray:
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    return flat.reshape(len(column), column.type.list_size)


def pad_lists(flat: np.ndarray, offsets: np.ndarray, width: int) -> np.ndarray:
    """The first `width` values of each list, padded with 0.

    Args:
      flat: `[sum of lengths]` values of all lists.
      offsets: `[R + 1]`; list r is `flat[offsets[r]:offsets[r + 1]]`.

    Returns:
      `[R, width]`, of flat's dtype.
    """
    lengths = np.minimum(np.diff(offsets), width)
    padded = np.zeros((len(lengths), width), flat.dtype)
    filled = np.arange(width) < lengths[:, None]
    padded[filled] = flat[(offsets[:-1, None] + np.arange(width))[filled]]
    return padded
