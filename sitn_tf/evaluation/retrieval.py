"""Does a user's history in one domain find the same user's in the other?

Stage 1 is judged by this on held-out users, never by its own loss,
which falls as well when users are learned by heart.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

RECALL_AT = 10


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Cross-domain retrieval among n users, the mean of both directions.

    Attributes:
      rank_gain: 0 where the mean logarithm of the own counterpart's rank is that of random
        instances, 1 where every counterpart is the nearest. What stage 1 is judged by: it takes
        notice of each user, the recall only of those near its bound (BUILD_NOTES.md, "Held-out
        retrieval").
      recall: share of users whose own counterpart is among the 10 nearest.
      chance: the recall that random instances would have.
      mrr: mean of one over the rank.
      median_rank: of the own counterpart, from 1.
      users: n.
    """

    rank_gain: float
    recall: float
    chance: float
    mrr: float
    median_rank: float
    users: int


def cross_domain_retrieval(
    p_source: np.ndarray, p_target: np.ndarray, at_once: int | None = None
) -> Retrieval:
    """Ranks each user's counterpart by dot product, in both directions.

    Args:
      p_source, p_target: `[n, D]`; row i of both is the same user.
      at_once: users are ranked in the fewest blocks of as many at most, as even as can be, each
        among itself; all together if None.
    """
    users = len(p_source)
    blocks = np.array_split(np.arange(users), -(-users // (at_once or users)))
    ranks = np.concatenate([_ranks_both_ways(p_source[b], p_target[b]) for b in blocks])
    sizes = [len(block) for block in blocks]
    by_chance = _mean(_log_rank_of_chance, sizes)
    return Retrieval(
        rank_gain=1.0 - float(np.mean(np.log(ranks))) / by_chance if by_chance else 0.0,
        recall=float(np.mean(ranks <= RECALL_AT)),
        chance=_mean(lambda size: min(RECALL_AT / size, 1.0), sizes),
        mrr=float(np.mean(1.0 / ranks)),
        median_rank=float(np.median(ranks)),
        users=users,
    )


def _ranks_both_ways(p_source: np.ndarray, p_target: np.ndarray) -> np.ndarray:
    scores = p_source @ p_target.T
    return np.concatenate([own_ranks(scores), own_ranks(scores.T)])


def _log_rank_of_chance(users: int) -> float:
    """Mean logarithm of a rank that is as likely any of 1 to `users`."""
    return math.lgamma(users + 1) / users


def _mean(of_block: Callable[[int], float], sizes: Sequence[int]) -> float:
    """Of what each block of users has, over the users."""
    return sum(size * of_block(size) for size in sizes) / sum(sizes)


def lift(recall: float, chance: float) -> float:
    """How many times the odds of chance a recall has: unlike a ratio, it has no upper bound.

    0.5 against 0.1 is 9 times: odds of 1 against 1/9.
    """
    if recall >= 1.0 or chance <= 0.0:
        return math.inf
    if chance >= 1.0:
        return math.nan
    return (recall / (1.0 - recall)) / (chance / (1.0 - chance))


def own_ranks(scores: np.ndarray) -> np.ndarray:
    """Rank from 1 of the diagonal in each row of `[n, n]`; ties count half, so that equal
    instances for all users are worth no more than chance. NaN where a score of the row is: nothing
    is above a score that is none, which would be the best rank of all.
    """
    own = np.diag(scores)[:, None]
    above = np.sum(scores > own, axis=1)
    tied = np.sum(scores == own, axis=1) - 1
    return np.where(np.isnan(scores).any(axis=1), np.nan, 1 + above + tied / 2)
