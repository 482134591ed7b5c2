"""The contrastive losses of stage 1 and the click loss of stage 2, as pure functions.

One function an equation (Sun et al., "Self-Supervised Interest Transfer Network via
Prototypical Contrastive Learning", AAAI 2023). Each returns a value per row, without
reduction; weights, reduction and the gather across replicas are the layers' business.

Letters: n local rows, N rows of the global batch, K clusters, D dimensions, tau temperature,
p instances, c clusters, u new clusters, pi assignment, q multi-view clusters.
"""

import tensorflow as tf

MASKED_LOGIT = -1e9
"""Stands for minus infinity: its exponential is 0 and its gradient is finite."""

SINKHORN_ITERATIONS = 3
"""Of a balanced assignment, as many as SwAV's."""


def unit(x: tf.Tensor) -> tf.Tensor:
    """Scales the last axis to length 1; a zero vector stays zero, with a finite gradient."""
    return tf.math.l2_normalize(x, axis=-1, epsilon=1e-12)


def info_nce(
    anchors: tf.Tensor,
    keys: tf.Tensor,
    positive: tf.Tensor,
    temperature: float,
    allowed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Instance-to-instance loss of each anchor, Eq. 3 and 4.

    -log exp(a . k_positive / tau) / sum_j exp(a . k_j / tau), over the positive and the
    allowed keys. With no other key the loss is 0.

    Args:
      anchors: `[n, D]`.
      keys: `[N, D]`.
      positive: `[n]` integer, index of each anchor's own key.
      allowed: `[n, N]` bool, keys that may be negatives; all if None. The positive
        counts in any case.

    Returns:
      `[n]`.
    """
    logits = tf.matmul(anchors, keys, transpose_b=True) / temperature
    own = tf.one_hot(positive, tf.shape(keys)[0], on_value=True, off_value=False, dtype=tf.bool)
    if allowed is not None:
        logits = tf.where(allowed | own, logits, MASKED_LOGIT)
    positive_logit = tf.gather(logits, positive, batch_dims=1)
    return tf.reduce_logsumexp(logits, axis=1) - positive_logit


def cluster_assignment(p: tf.Tensor, c: tf.Tensor, temperature: float = 1.0) -> tf.Tensor:
    """Soft assignment of instances to clusters, Eq. 5 second line: softmax over K of c . p.

    Args:
      p: `[N, D]`.
      c: `[K, D]`.

    Returns:
      pi, `[N, K]`; rows sum to 1.
    """
    return tf.nn.softmax(tf.matmul(p, c, transpose_b=True) / temperature, axis=1)


def balanced_assignment(
    p: tf.Tensor, c: tf.Tensor, valid: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """`cluster_assignment` with about as many of the valid instances for each cluster.

    Sinkhorn's iterations as in SwAV (Caron et al., NeurIPS 2020): exp(c . p / tau) is scaled, in
    turn, so that the valid rows give each cluster the same sum and that each row sums to 1. With a
    gradient, where SwAV has none: nothing else trains C.

    Args:
      p: `[N, D]`, the global batch.
      c: `[K, D]`.
      valid: `[N]` bool.

    Returns:
      pi, `[N, K]`; rows sum to 1, those that are not valid too.
    """
    logits = tf.matmul(p, c, transpose_b=True) / temperature
    left_out = tf.where(valid, 0.0, MASKED_LOGIT)[:, None]
    for _ in range(SINKHORN_ITERATIONS):
        logits -= tf.reduce_logsumexp(logits + left_out, axis=0, keepdims=True)
        logits -= tf.reduce_logsumexp(logits, axis=1, keepdims=True)
    return tf.exp(logits)


def new_clusters(pi: tf.Tensor, p: tf.Tensor, valid: tf.Tensor, norm: str = "none") -> tf.Tensor:
    """New clusters, Eq. 5 first line: u_k = sum_i pi_i(k) p_i over the valid rows.

    Args:
      pi: `[N, K]`.
      p: `[N, D]`.
      valid: `[N]` bool.
      norm: "none" as printed; "mean" divides by sum_i pi_i(k); "l2" gives unit vectors.

    Returns:
      u, `[K, D]`.
    """
    weights = pi * tf.cast(valid, pi.dtype)[:, None]
    u = tf.matmul(weights, p, transpose_a=True)
    if norm == "mean":
        return tf.math.divide_no_nan(u, tf.reduce_sum(weights, axis=0)[:, None])
    return unit(u) if norm == "l2" else u


def top_clusters(p: tf.Tensor, u: tf.Tensor, k: int) -> tf.Tensor:
    """The k new clusters most similar to each instance, the most similar first (Eq. 6).

    Args:
      p: `[n, D]`.
      u: `[K, D]`.

    Returns:
      `[n, k]` int32, rows of u.
    """
    return tf.math.top_k(tf.matmul(p, u, transpose_b=True), k=k, sorted=True).indices


def instance_to_cluster(
    anchors: tf.Tensor,
    q: tf.Tensor,
    negatives: tf.Tensor,
    temperature: float,
    allowed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Instance-to-cluster loss of each anchor, Eq. 7.

    -log exp(a . q / tau) / (exp(a . q / tau) + sum_j exp(a . negative_j / tau)). With no
    allowed negative the loss is 0.

    Args:
      anchors: `[n, D]`, instances of one domain.
      q: `[n, D]`, multi-view clusters of the same users in the other domain.
      negatives: `[M, D]`, as printed all new clusters of the other domain.
      allowed: `[n, M]` bool, which negatives count; all if None.

    Returns:
      `[n]`.
    """
    positive_logit = tf.reduce_sum(anchors * q, axis=1, keepdims=True) / temperature
    negative_logits = tf.matmul(anchors, negatives, transpose_b=True) / temperature
    if allowed is not None:
        negative_logits = tf.where(allowed, negative_logits, MASKED_LOGIT)
    logits = tf.concat([positive_logit, negative_logits], axis=1)
    return tf.reduce_logsumexp(logits, axis=1) - positive_logit[:, 0]


def click_loss(labels: tf.Tensor, logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of each candidate, Eq. 9, from logits; 0 where `mask` is False.

    Args:
      labels: `[B, C]`, 0 or 1.
      logits: `[B, C]`.
      mask: `[B, C]` bool, True for real candidates.

    Returns:
      `[B, C]`.
    """
    loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
    return tf.where(mask, loss, tf.zeros_like(loss))


def softmax_loss(labels: tf.Tensor, logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of each request's clicks, by a softmax over its candidates.

    A request of several clicks has the mean of theirs: the cross-entropy to a distribution that
    is even among them.

    Args:
      labels: `[B, C]`, 0 or 1.
      logits: `[B, C]`.
      mask: `[B, C]` bool, True for real candidates.

    Returns:
      `[B]`; 0 where no real candidate is clicked.
    """
    clicked = tf.where(mask, tf.cast(labels, logits.dtype), tf.zeros_like(logits))
    among = tf.where(mask, logits, tf.cast(MASKED_LOGIT, logits.dtype))
    each = tf.reduce_logsumexp(among, axis=1, keepdims=True) - among
    return tf.math.divide_no_nan(
        tf.reduce_sum(clicked * each, axis=1), tf.reduce_sum(clicked, axis=1)
    )
