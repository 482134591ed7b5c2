"""Item tables: a data set's Parquet table of a domain → arrays aligned to item ids."""

import dataclasses
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sitn_tf import schema
from sitn_tf.errors import InputError


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
    ids: list[str]
    titles: list[str]
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
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} can't be read ({error})",
            "build the data set again, or train again if it is a run directory's",
        ) from error
    features, sizes = {}, {}
    for name in side_features:
        size = manifest.vocabulary_size(domain, name)
        if size <= schema.FIRST_ID:
            continue
        column = table.column(name).combine_chunks()
        if name == schema.TITLE_WORDS:
            flat = column.values.to_numpy(zero_copy_only=False).astype(np.int32)
            features[name] = pad_lists(flat, column.offsets.to_numpy(), title_words)
        else:
            features[name] = column.to_numpy(zero_copy_only=False).astype(np.int32)
        sizes[name] = size
    has_vectors = schema.VECTOR in side_features and schema.VECTOR in table.column_names
    return ItemTable(
        domain=domain,
        ids=table.column(schema.ITEM).to_pylist(),
        titles=table.column(schema.TITLE).to_pylist(),
        count=table.column(schema.COUNT).to_numpy(),
        features=features,
        vocabulary_sizes=sizes,
        vectors=vectors_of(table) if has_vectors else None,
    )


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
    column = table.column(schema.VECTOR).combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    return flat.reshape(len(table), column.type.list_size)


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
