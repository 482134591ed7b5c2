"""A scorer's parts put together by hand: item vectors, `encode`, then `score`."""

import functools

from sitn_tf import schema
from sitn_tf.layers.embedding import look_up


def encode_and_score(scorer, inputs, candidates=None):
    """Logits of `candidates`, else of the inputs' own, from users that are encoded once."""

    def vectors(domain, ids):
        return look_up(functools.partial(scorer.item_vectors, domain), ids)[0]

    histories = {}
    for domain in scorer.items:
        ids = inputs[schema.HISTORY_OF_DOMAIN[domain].name]
        histories[domain] = scorer.history_of(domain, ids, vectors(domain, ids), inputs)
    encoded = scorer.encode(histories, inputs)
    shown = inputs["candidates"] if candidates is None else candidates
    return scorer.score(encoded, vectors(schema.TARGET, shown))
