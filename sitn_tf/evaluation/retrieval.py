"""Does a user's history in one domain find the same user's in the other?

Stage 1 is judged by this on held-out users, never by its own loss,
which falls as well when users are learned by heart.
"""

import dataclasses
import math

import numpy as np

RECALL_AT = 10


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Cross-domain retrieval among n users, the mean of both directions.

    Attributes:
      recall: share of users whose own counterpart is among the 10 nearest.
      chance: the recall that random instances would have.
      median_rank: of the own counterpart, from 1.
      users: n.
    """

    recall: float
    chance: float
    median_rank: float
    users: int


def cross_domain_retrieval(p_source: np.ndarray, p_target: np.ndarray) -> Retrieval:
    """Ranks each user's counterpart by dot product, in both directions.

    Args:
      p_source, p_target: `[n, D]`; row i of both is the same user.
    """
    scores = p_source @ p_target.T
    ranks = np.concatenate([own_ranks(scores), own_ranks(scores.T)])
    users = len(scores)
    return Retrieval(
        recall=float(np.mean(ranks <= RECALL_AT)),
        chance=min(RECALL_AT / users, 1.0),
        median_rank=float(np.median(ranks)),
        users=users,
    )


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
    instances for all users are worth no more than chance.
    """
    own = np.diag(scores)[:, None]
    above = np.sum(scores > own, axis=1)
    tied = np.sum(scores == own, axis=1) - 1
    return 1 + above + tied / 2
