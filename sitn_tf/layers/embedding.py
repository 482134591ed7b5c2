"""Item ids → item vectors: id embedding plus the side features of the item table."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.distributed import tables
from sitn_tf.distributed.tables import rows_of
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers import randomness, tensor_hashes
from sitn_tf.layers.drawn_rows import RandomSigns, SpareReservedRows
from sitn_tf.sections import ItemsConfig

ID_SHARE = 0.01
"""Start of id embeddings, relative to those of side features: an item is first known by what it
shares with others, and one that is hardly clicked stays without noise of its own (BUILD_NOTES.md,
"Where embeddings start")."""


class VectorProjection(tf_keras.layers.Layer):
    """The matrix `[P, D]` that makes items' vectors (ItemTable.vectors) parts of embeddings.

    One for both domains: their vectors have the same meaning.

    Args:
      width: P.
      dim: D.
      initializer: by default vectors of length 1 start like the rows of a side feature.
    """

    def __init__(
        self, width: int, dim: int, name: str = "item_projection", initializer: Any = None
    ) -> None:
        super().__init__(name=name)
        self.kernel = self.add_weight(
            f"{name}/kernel",
            shape=(width, dim),
            initializer=initializer or tf_keras.initializers.RandomNormal(stddev=dim**-0.5),
        )
        self.built = True

    def projected(self, vectors: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """`[U, P]` float16 → `[U, D]` of `dtype`."""
        return tf.matmul(tf.cast(vectors, dtype), tf.cast(self.kernel, dtype))


class SharedTables(tf_keras.layers.Layer):
    """Tables of the side features whose ids mean the same in both domains, `[size, D]` each.

    Args:
      sizes: number of ids by feature.
      dim: D.

    Attributes:
      of: the tables by feature.
    """

    def __init__(self, sizes: Mapping[str, int], dim: int, name: str = "shared_items") -> None:
        super().__init__(name=name)
        self.of = {
            feature: _side_table(self, feature, size, dim) for feature, size in sizes.items()
        }
        self.built = True


class ItemEmbedding(tf_keras.layers.Layer):
    """Vectors of a domain's items, computed once for each distinct id of a batch.

    An item's vector is the sum of its id embedding, the embeddings of its categorical
    features, the mean embedding of its title words and its projected vector, as far as the table
    has these. The vector of id 0 (padding) is zero. The embedding of id 1 (unknown) starts at
    zero, the centre of the others.

    Args:
      table: the domain's item table; its arrays become untrained variables.
      config: how ids have their embeddings (`id_embedding`).
      dim: D.
      projection: of the items' vectors, needed where the table has some.
      shared: the tables of features that it shares with the other domain.
      spare_ids: no gradient reaches the id embeddings of items of which more than the id is known
        (ItemTable.described), nor those of the reserved ids.
    """

    def __init__(
        self,
        table: ItemTable,
        config: ItemsConfig,
        dim: int,
        name: str | None = None,
        projection: VectorProjection | None = None,
        shared: SharedTables | None = None,
        spare_ids: bool = False,
    ) -> None:
        super().__init__(name=name or f"{table.domain}_items")
        self.shared, self.spare_ids = shared, spare_ids
        self.projection = None if table.vectors is None else projection
        self.table = table
        self.config = config
        self.dim = dim

    def build(self, input_shape: tf.TensorShape) -> None:
        rows = self.config.table_rows(self.table.size)
        combined_by_sum = len(rows) == 2 and self.config.id_combination == "sum"
        # The sum of two tables starts with the spread of one.
        self.ids = self._weights("ids", rows[0], ID_SHARE * (0.5**0.5 if combined_by_sum else 1.0))
        self.quotients = None
        if combined_by_sum:
            self.quotients = self._weights("quotients", rows[1], ID_SHARE * 0.5**0.5)
        elif len(rows) == 2:
            self.quotients = add_table(self, "quotients", rows[1], self.dim, RandomSigns())
        self.feature_ids = {}
        self.feature_weights = {}
        for feature, values in self.table.features.items():
            self.feature_ids[feature] = self._values(feature, values)
            if self.shared is not None and feature in self.table.shared:
                self.feature_weights[feature] = self.shared.of[feature]
            else:
                size = self.table.vocabulary_sizes[feature]
                self.feature_weights[feature] = self._weights(feature, size)
        self.vectors_of_items = None
        if self.table.vectors is not None:
            self.vectors_of_items = self._values(schema.VECTOR, self.table.vectors)
        super().build(input_shape)

    def _values(self, feature: str, values: np.ndarray) -> tf.Variable:
        with tables.may_be_cut():
            return self.add_weight(
                f"{self.name}/{feature}_of_item",
                shape=values.shape,
                dtype=values.dtype,
                initializer=tables.Rows(values),
                trainable=False,
                experimental_autocast=False,  # it would cast the whole table, not the rows read
            )

    def _weights(self, name: str, rows: int, share: float = 1.0) -> tf.Variable:
        return _side_table(self, name, rows, self.dim, share)

    @property
    def id_variables(self) -> list[tf.Variable]:
        """The tables that belong to ids, not to side features; of a sharded one its shards."""
        of_ids = [self.ids] if self.quotients is None else [self.ids, self.quotients]
        return [part for table in of_ids for part in tables.parts_of(table)]

    def id_vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """`[U]` ids → `[U, D]` embeddings of the ids alone."""
        rows = self.config.id_rows
        if self.config.id_embedding == "full":
            return rows_of(self.ids, ids)
        if self.config.id_embedding == "hash":
            return rows_of(self.ids, hashed_rows(ids, rows))
        quotient, remainder = quotient_and_remainder(ids, rows)
        parts = rows_of(self.quotients, quotient), rows_of(self.ids, remainder)
        return parts[0] + parts[1] if self.config.id_combination == "sum" else parts[0] * parts[1]

    def fields(self, ids: tf.Tensor) -> list[tf.Tensor]:
        """`[U]` ids → the parts of their vectors, `[U, D]` each: the id's, each side feature's.

        Those of padding carry no meaning.
        """
        known = {feature: rows_of(of_item, ids) for feature, of_item in self.feature_ids.items()}
        vectors = None
        if self.vectors_of_items is not None:
            vectors = rows_of(self.vectors_of_items, ids)
        parts = [self._id_part(ids, known, vectors)]
        for feature, values in known.items():
            embedded = rows_of(self.feature_weights[feature], values)
            if feature == schema.TITLE_WORDS:
                embedded = masked_mean(embedded, values != schema.PAD_ID)
            parts.append(embedded)
        if vectors is not None and self.projection is not None:
            parts.append(self.projection.projected(vectors, parts[0].dtype))
        return parts

    def _id_part(
        self, ids: tf.Tensor, known: Mapping[str, tf.Tensor], vectors: tf.Tensor | None
    ) -> tf.Tensor:
        """`id_vectors`, but for what is spared or dropped of items that are described."""
        droppable = self.table.side_features and randomness.in_a_step()
        dropout = self.config.id_dropout if droppable else 0.0
        if not self.spare_ids and not dropout:
            return self.id_vectors(ids)
        described = self._described(known, vectors)
        if self.spare_ids:
            part = self._id_vectors_but(ids, (ids < schema.FIRST_ID) | described)
        else:
            part = self.id_vectors(ids)
        if dropout:
            number = schema.DOMAINS.index(self.table.domain)
            dropped = described & randomness.chosen(ids, number, dropout)
            part *= tf.cast(~dropped, part.dtype)[:, None]
        return part

    def _id_vectors_but(self, ids: tf.Tensor, spared: tf.Tensor) -> tf.Tensor:
        """`id_vectors` whose gradient has no row of the `spared` `[U]` at all.

        A row of zeros would still be decayed.
        """
        learned = tf.where(~spared)
        return tf.tensor_scatter_nd_update(
            tf.stop_gradient(self.id_vectors(ids)),
            learned,
            self.id_vectors(tf.gather_nd(ids, learned)),
        )

    def _described(self, known: Mapping[str, tf.Tensor], vectors: tf.Tensor | None) -> tf.Tensor:
        """`[U]` bool: ItemTable.described, from what is read of items anyhow."""
        parts = [values > schema.OOV_ID for values in known.values()]
        if vectors is not None:
            parts.append(vectors != 0)
        return tf.reduce_any(
            [tf.reduce_any(tf.reshape(part, [tf.shape(part)[0], -1]), axis=1) for part in parts],
            axis=0,
        )

    def vectors(self, ids: tf.Tensor) -> tf.Tensor:
        """`[U]` ids → `[U, D]`, one row of work an id."""
        first, *others = self.fields(ids)
        total = sum(others, first)
        total *= tf.cast(ids != schema.PAD_ID, total.dtype)[:, None]
        return tf.cast(total, self.compute_dtype)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """`[...]` ids → `[..., D]`."""
        return look_up(self.vectors, ids)[0]


def embed_items(
    tables: dict[str, ItemTable],
    config: ItemsConfig,
    dim: int,
    domains: Iterable[str],
    spare_ids: Iterable[str] = (),
) -> dict[str, ItemEmbedding]:
    """Item embeddings by domain, with all their variables.

    One projection is in all of them, and one table of each side feature that they share.

    Args:
      spare_ids: domains whose embeddings have it, see ItemEmbedding.
    """
    vectors = [t.vectors for t in tables.values() if t.vectors is not None]
    projection = VectorProjection(vectors[0].shape[1], dim) if vectors else None
    sizes = {
        feature: table.vocabulary_sizes[feature]
        for table in tables.values()
        for feature in table.features
        if feature in table.shared
    }
    shared = SharedTables(sizes, dim) if sizes else None
    items = {
        domain: ItemEmbedding(
            tables[domain],
            config,
            dim,
            projection=projection,
            shared=shared,
            spare_ids=domain in spare_ids,
        )
        for domain in domains
    }
    for embedding in items.values():
        embedding.build([None])
    return items


def look_up(vectors_of: Callable[[tf.Tensor], tf.Tensor], *ids: tf.Tensor) -> list[tf.Tensor]:
    """Vectors of several id tensors, each `[...]` → `[..., W]`, sharing the work.

    Args:
      vectors_of: distinct ids `[U]` → their vectors `[U, W]`.
    """
    flat = tf.concat([tf.reshape(i, [-1]) for i in ids], axis=0)
    distinct, place = tf.unique(flat)
    parts = tf.split(place, [tf.size(i) for i in ids])
    vectors = vectors_of(distinct)
    return [
        tf.reshape(tf.gather(vectors, part), [*tf.unstack(tf.shape(i)), vectors.shape[1]])
        for i, part in zip(ids, parts, strict=True)
    ]


def add_table(
    layer: tf_keras.layers.Layer, name: str, rows: int, width: int, initializer: Any
) -> tf.Variable:
    """A layer's trained variable `[rows, width]`, named `<layer>/<name>` and marked as a table."""
    full_name = f"{layer.name}/{name}"
    with tables.may_be_cut():
        table = layer.add_weight(full_name, shape=(rows, width), initializer=initializer)
    return tables.mark(table)


def _side_table(
    layer: tf_keras.layers.Layer, name: str, rows: int, dim: int, share: float = 1.0
) -> tf.Variable:
    """A table of items' embeddings; `share` is of the spread with which a side feature starts."""
    return add_table(layer, name, rows, dim, SpareReservedRows(share * dim**-0.5))


def hashed_rows(ids: tf.Tensor, rows: int) -> tf.Tensor:
    """Ids → rows of a table of `rows` shared ones behind the reserved ids' own two.

    Args:
      ids: int64, any shape.

    Returns:
      int64, of the same shape, below `rows + schema.FIRST_ID`.
    """
    return _behind_reserved(ids, tensor_hashes.below(tensor_hashes.scramble(ids), rows))


def quotient_and_remainder(ids: tf.Tensor, rows: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Ids → rows of two tables, a pair of which belongs to one id.

    Shi et al., "Compositional Embeddings Using Complementary Partitions for Memory-Efficient
    Recommendation Systems", KDD 2020, Section 4.

    Args:
      ids: int64, any shape.
      rows: of the table of remainders, besides the reserved ids' own two.

    Returns:
      Rows of the quotients' and of the remainders' table; the reserved ids have their own.
    """
    place = ids - schema.FIRST_ID
    return _behind_reserved(ids, place // rows), _behind_reserved(ids, place % rows)


def _behind_reserved(ids: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.where(ids < schema.FIRST_ID, ids, schema.FIRST_ID + rows)


def masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean over the second-to-last axis of what `mask` keeps; zeros where it keeps nothing.

    The aggregation g of Eq. 2.

    Args:
      values: `[..., T, D]`.
      mask: `[..., T]` bool.

    Returns:
      `[..., D]`.
    """
    weights = tf.cast(mask, values.dtype)[..., None]
    total = tf.reduce_sum(values * weights, axis=-2)
    return tf.math.divide_no_nan(total, tf.reduce_sum(weights, axis=-2))
