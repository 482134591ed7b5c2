"""A pre-trainer's instances p (Eq. 2): of the users of a split, and of items by themselves."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from sitn_tf import data, losses, schema, shards
from sitn_tf.models.pretrainer import Pretrainer

BATCH = 4096
"""Users or items encoded at once."""


@dataclasses.dataclass(frozen=True)
class Users:
    """Instances of n users.

    Attributes:
      ids: `[n]` raw ids.
      instances: p `[n, D]` by domain; zeros for an empty history.
    """

    ids: list[str]
    instances: Mapping[str, np.ndarray]


def read_users(
    model: Pretrainer,
    data_dir: str | pathlib.Path,
    split: str,
    most: int | None = None,
    batch_size: int = BATCH,
) -> Users:
    """Encodes the first users of a stage-1 split, all if `most` is None."""
    with shards.named(data_dir, [schema.STAGE1]):
        batches = data.read_split(data_dir, schema.STAGE1, split, batch_size)
        return encode_users(model, batches, most)


def read_user(model: Pretrainer, data_dir: str | pathlib.Path, user: str) -> Users | None:
    """Encodes one user of stage 1 alone; None where it has no such user."""
    for split in schema.STAGE1_SPLITS:
        with shards.named(data_dir, [schema.STAGE1]):
            for batch in data.read_split(data_dir, schema.STAGE1, split, BATCH):
                ids = [told(raw) for raw in batch[schema.USER_ID.name].numpy()]
                if user in ids:
                    row = slice(ids.index(user), ids.index(user) + 1)
                    alone = {name: values[row] for name, values in batch.items()}
                    return encode_users(model, [alone])
    return None


def told(user_id: bytes) -> str:
    """A raw user id as text."""
    return user_id.decode(errors="replace")


def encode_users(
    model: Pretrainer, batches: Iterable[data.Batch], most: int | None = None
) -> Users:
    """Encodes the first users of batches of schema.STAGE1_FEATURES, all if `most` is None."""
    ids: list[str] = []
    parts: dict[str, list[np.ndarray]] = {domain: [] for domain in schema.DOMAINS}
    for batch in batches:
        for domain, instances in zip(schema.DOMAINS, model(batch), strict=True):
            parts[domain].append(instances.numpy())
        ids += [told(user) for user in batch[schema.USER_ID.name].numpy()]
        if most is not None and len(ids) >= most:
            break
    return Users(ids[:most], {d: np.concatenate(parts[d])[:most] for d in schema.DOMAINS})


def item_instances(model: Pretrainer, domain: str, items: int) -> np.ndarray:
    """The instance of each known item's history of that item alone, of length 1.

    Args:
      items: R, rows of the domain's item table.

    Returns:
      `[R - 2, D]` float32; row r is of the item with id r + 2.
    """
    return np.concatenate(list(parts_of_item_instances(model, domain, items)))


def parts_of_item_instances(model: Pretrainer, domain: str, items: int) -> Iterator[np.ndarray]:
    """The rows of `item_instances`, `[BATCH, D]` at a time."""
    for first in range(schema.FIRST_ID, items, BATCH):
        alone = tf.range(first, min(first + BATCH, items), dtype=tf.int64)[:, None]
        histories = {
            feature.name: alone if d == domain else tf.zeros_like(alone)
            for d, feature in schema.HISTORY_OF_DOMAIN.items()
        }
        # Whenever it was, the only click is the newest.
        histories |= {f.name: tf.ones_like(alone) for f in schema.TIMES_OF_DOMAIN.values()}
        encoded = dict(zip(schema.DOMAINS, model(histories), strict=True))
        yield unit(encoded[domain].numpy())


def unit(vectors: np.ndarray) -> np.ndarray:
    """`[R, D]` → the same directions, of length 1; zeros stay zeros."""
    return losses.unit(vectors).numpy()


def prototypes(model: Pretrainer) -> Iterator[tuple[str, np.ndarray]]:
    """The learned clusters C `[K, D]` of each granularity and domain, of length 1."""
    for space in model.i2c:
        yield schema.SOURCE, unit(space.source.c)
        yield schema.TARGET, unit(space.target.c)
