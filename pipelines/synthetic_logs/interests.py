"""Knobs to what is planted: the interests of items and of users."""

import dataclasses

import numpy as np

from pipelines.synthetic_logs.knobs import CHUNK_USERS, ITEMS, USERS, Floats, Ints, Knobs, generator
from sitn_tf import schema

WEIGHT_SHAPE = 2.0  # Gamma: few users with one all but empty slot


@dataclasses.dataclass(frozen=True)
class Items:
    """One domain's items; N of them, in order of their number.

    Attributes:
      interest: int64 [N], g(i).
      quality: float64 [N], b_i.
      by_interest: int64 [N], item numbers, grouped by interest, most popular first.
      cumulative: float64 [N], of the items in that order: g + the share of interest g's
        popularity up to and with the item, so that one search draws for all interests.
      last: int64 [G], the place of each interest's last item in that order.
    """

    interest: Ints
    quality: Floats
    by_interest: Ints
    cumulative: Floats
    last: Ints

    def draw(self, interest: Ints, rng: np.random.Generator) -> Ints:
        """An item of each interest in `interest` (any shape), by popularity."""
        place = np.searchsorted(self.cumulative, interest + rng.random(interest.shape), "right")
        # g + a number just below 1 may round to g + 1.
        return self.by_interest[np.minimum(place, self.last[interest])]


@dataclasses.dataclass(frozen=True)
class Slots:
    """The interests of n users in one domain: int64 [n, M] and float64 [n, M], rows sum to 1."""

    interest: Ints
    weight: Floats

    def theta(self, user: Ints, interest: Ints) -> Floats:
        """theta_u(g) for users [N, 1] or [N] and interests of a shape that broadcasts with it."""
        total: Floats = np.zeros(np.broadcast_shapes(user.shape, interest.shape))
        for slot in range(self.interest.shape[1]):
            of_slot = self.interest[user, slot] == interest
            total += np.where(of_slot, self.weight[user, slot], 0.0)
        return total

    def draw(self, user: Ints, rng: np.random.Generator) -> Ints:
        """An interest ~ theta_u for each user in `user` [N]."""
        cumulative = np.cumsum(self.weight, axis=1)[:, :-1]
        slot = np.sum(rng.random(len(user))[:, None] >= cumulative[user], axis=1)
        return self.interest[user, slot]


def make_items(knobs: Knobs, domain: str) -> Items:
    """The items of a domain."""
    rng = generator(knobs, ITEMS, schema.DOMAINS.index(domain))
    count, interests = knobs.items(domain), knobs.interests
    # The numbers 0..N-1 shuffled: the remainder by G says the interest, the
    # quotient the rank in it, and an item's number says nothing of either.
    shuffled = rng.permutation(count)
    interest, rank = shuffled % interests, shuffled // interests
    by_interest = np.lexsort((rank, interest))
    weight = (rank[by_interest] + 1.0) ** -knobs.popularity
    sizes = np.bincount(interest, minlength=interests)
    last = np.cumsum(sizes) - 1
    total = np.add.reduceat(weight, last - sizes + 1)
    running = np.cumsum(weight)
    before = np.concatenate([[0.0], running[last[:-1]]])
    grouped = interest[by_interest]
    cumulative = grouped + (running - before[grouped]) / total[grouped]
    cumulative[last] = np.arange(1, interests + 1)
    return Items(
        interest=interest,
        quality=knobs.quality * rng.standard_normal(count),
        by_interest=by_interest,
        cumulative=cumulative,
        last=last,
    )


def make_users(knobs: Knobs, chunk: int) -> dict[str, Slots]:
    """The slots of a chunk's users, by domain."""
    rng = generator(knobs, USERS, chunk)
    shape = (CHUNK_USERS, knobs.active)
    target_interest, own_interest = rng.integers(knobs.interests, size=(2, *shape))
    target_weight, own_weight = rng.gamma(WEIGHT_SHAPE, size=(2, *shape))
    is_shared = rng.random(shape) < knobs.shared
    source_interest = np.where(is_shared, target_interest, own_interest)
    source_weight = np.where(is_shared, target_weight, own_weight)
    return {
        schema.SOURCE: Slots(source_interest, _normalise(source_weight)),
        schema.TARGET: Slots(target_interest, _normalise(target_weight)),
    }


def _normalise(weight: Floats) -> Floats:
    return np.asarray(weight / np.sum(weight, axis=1, keepdims=True))
