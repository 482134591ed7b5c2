"""Slow NumPy loops, one an equation of the paper, written from the paper and not from the code."""

import math

import numpy as np


def attention(q, k, v):
    """Eq. 1 for one head: q `[Q, d]`, k `[T, d]`, v `[T, d]` → `[Q, d]`."""
    out = np.zeros((len(q), v.shape[1]))
    for i in range(len(q)):
        weights = [
            math.exp(float(np.dot(q[i], k[j])) / math.sqrt(k.shape[1])) for j in range(len(k))
        ]
        for j in range(len(k)):
            out[i] += weights[j] / sum(weights) * v[j]
    return out


def multi_head_attention(queries, sequence, wq, wk, wv, wo, heads):
    """Project h times, attend, concatenate, project again (text below Eq. 1)."""
    d = wq.shape[1] // heads
    parts = []
    for h in range(heads):
        columns = slice(h * d, (h + 1) * d)
        parts.append(
            attention(
                queries @ wq[:, columns], sequence @ wk[:, columns], sequence @ wv[:, columns]
            )
        )
    return np.concatenate(parts, axis=1) @ wo


def mean_pooling(z):
    """Eq. 2's g: `[T, D]` → `[D]`."""
    total = np.zeros(z.shape[1])
    for row in z:
        total += row
    return total / len(z)


def age_vector(seconds, curve):
    """A straight line between the curve's `[P, D]` neighbours of log2(1 + hours): `[D]`."""
    place = min(math.log2(1 + seconds / 3600), len(curve) - 1)
    below = min(int(place), len(curve) - 2)
    return curve[below] + (place - below) * (curve[below + 1] - curve[below])


def i2i(anchors, keys, tau):
    """Eq. 3 (and 4 with the domains exchanged), the term of each k."""
    losses = []
    for k in range(len(anchors)):
        numerator = math.exp(float(np.dot(anchors[k], keys[k])) / tau)
        denominator = sum(math.exp(float(np.dot(anchors[k], key)) / tau) for key in keys)
        losses.append(-math.log(numerator / denominator))
    return np.array(losses)


def assignment(p, c):
    """Eq. 5, second line: `[N, K]`."""
    pi = np.zeros((len(p), len(c)))
    for i in range(len(p)):
        exponentials = [math.exp(float(np.dot(c[k], p[i]))) for k in range(len(c))]
        for k in range(len(c)):
            pi[i, k] = exponentials[k] / sum(exponentials)
    return pi


def balanced_assignment(p, c, valid, tau, iterations):
    """Sinkhorn's iterations over the valid rows: `[N, K]`, the other rows are zero."""
    rows = [i for i in range(len(p)) if valid[i]]
    pi = np.zeros((len(p), len(c)))
    for i in rows:
        for k in range(len(c)):
            pi[i, k] = math.exp(float(np.dot(c[k], p[i])) / tau)
    for _ in range(iterations):
        for k in range(len(c)):
            pi[:, k] *= len(rows) / len(c) / sum(pi[i, k] for i in rows)
        for i in rows:
            pi[i] /= sum(pi[i, k] for k in range(len(c)))
    return pi


def new_clusters(pi, p):
    """Eq. 5, first line: `[K, D]`."""
    u = np.zeros((pi.shape[1], p.shape[1]))
    for k in range(pi.shape[1]):
        for i in range(len(p)):
            u[k] += pi[i, k] * p[i]
    return u


def top_k_concatenated(p, u, k):
    """The argument of the MLP of Eq. 6: `[N, k * D]`, the most similar first."""
    rows = []
    for i in range(len(p)):
        order = sorted(range(len(u)), key=lambda j: -float(np.dot(p[i], u[j])))
        rows.append(np.concatenate([u[j] for j in order[:k]]))
    return np.array(rows)


def mlp(x, layers):
    """ReLU layers, the last one linear; layers are (kernel, bias) pairs."""
    for number, (kernel, bias) in enumerate(layers):
        x = x @ kernel + bias
        if number < len(layers) - 1:
            x = np.maximum(x, 0.0)
    return x


def i2c(anchors, q, u, tau):
    """Eq. 7 one way, the term of each k."""
    losses = []
    for k in range(len(anchors)):
        positive = math.exp(float(np.dot(anchors[k], q[k])) / tau)
        negatives = sum(math.exp(float(np.dot(anchors[k], row)) / tau) for row in u)
        losses.append(-math.log(positive / (positive + negatives)))
    return np.array(losses)


def cross_entropy(label, probability):
    """Eq. 9."""
    return -(label * math.log(probability) + (1 - label) * math.log(1 - probability))


def softmax_cross_entropy(labels, logits):
    """The mean over a request's clicks of -log softmax; 0 without a click."""
    clicks = [c for c in range(len(labels)) if labels[c]]
    total = sum(math.exp(float(logit)) for logit in logits)
    terms = [-math.log(math.exp(float(logits[c])) / total) for c in clicks]
    return sum(terms) / len(terms) if terms else 0.0


def dice(s, mean, variance, alpha):
    """DIN's activation: `[..., H]`, with the moments `[H]` of each channel."""
    p = 1.0 / (1.0 + np.exp(-(s - mean) / np.sqrt(variance + 1e-8)))
    return p * s + (1.0 - p) * alpha * s


def augru(inputs, attention, w, u, b, start=None):
    """DIEN's AUGRU over one sequence `[T, I]`: the states `[T, H]`; a GRU where attention is 1."""
    units = len(u)
    parts = [slice(n * units, (n + 1) * units) for n in range(3)]
    state, states = np.zeros(units) if start is None else start, []
    for i, a in zip(inputs, attention, strict=True):
        of_input, of_state = ([x @ m[:, p] for p in parts] for x, m in ((i, w), (state, u)))
        update = 1.0 / (1.0 + np.exp(-(of_input[0] + of_state[0] + b[parts[0]])))
        reset = 1.0 / (1.0 + np.exp(-(of_input[1] + of_state[1] + b[parts[1]])))
        new = np.tanh(of_input[2] + reset * of_state[2] + b[parts[2]])
        state = (1.0 - a * update) * state + a * update * new
        states.append(state)
    return np.array(states).reshape(-1, units)


def next_click(states, clicks, against, counts):
    """DIEN's auxiliary loss: the sum over one history's steps, and how many there are.

    Args:
      states, clicks, against: `[T, D]`, h, e and ê of a history without padding.
      counts: `[T]`, whether ê counts.
    """
    total = 0.0
    for t in range(len(states) - 1):
        total += math.log(1 + math.exp(-float(np.dot(states[t], clicks[t + 1]))))
        if counts[t + 1]:
            total += math.log(1 + math.exp(float(np.dot(states[t], against[t + 1]))))
    return total, max(len(states) - 1, 0)


def query_attention(query, sequence, key, layers):
    """CLSR's attention of a query `[I]` over a sequence `[T, D]`, zeros if that is empty: `[D]`."""
    scores = []
    for x in sequence:
        k = x @ key
        scores.append(mlp(np.concatenate([query, k, query - k, query * k]), layers)[0])
    exponentials = [math.exp(score) for score in scores]
    out = np.zeros(key.shape[0])
    for x, e in zip(sequence, exponentials, strict=True):
        out += e / sum(exponentials) * x
    return out


def interest_contrast(long, short, sequence, recent, margin):
    """CLSR's four terms for one candidate, with triplets if there is a margin, else with BPR."""
    p_l, p_s = mean_pooling(sequence), mean_pooling(sequence[-recent:])

    def term(a, p, q):
        if margin is None:
            return math.log(1 + math.exp(float(np.dot(a, q) - np.dot(a, p))))
        return sum(
            max(0.0, (a[d] - p[d]) ** 2 - (a[d] - q[d]) ** 2 + margin) for d in range(len(a))
        )

    return (
        term(long, p_l, p_s)
        + term(p_l, long, short)
        + term(short, p_s, p_l)
        + term(p_s, short, long)
    )
