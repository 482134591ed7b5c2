import numpy as np
import pytest

from sitn_tf.evaluation import collapse


def test_measures_golden():
    # First choices 0, 0, 1 of four clusters: two are dead.
    pi = np.array([[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [0.1, 0.8, 0.1, 0.0]])
    assert collapse.dead_share(pi) == 0.5
    # A mean assignment of (1/2, 1/2) over 2 of 4 clusters has log 2 of log 4.
    half = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    assert collapse.relative_entropy(half) == pytest.approx(0.5)
    # Cosines of (1, 0), (0, 1), (1, 1): 0, 1/sqrt 2 and 1/sqrt 2, each twice in six.
    vectors = np.array([[2.0, 0], [0, 3.0], [1.0, 1.0]])
    assert collapse.mean_cosine(vectors) == pytest.approx(2 * 2**-0.5 / 3)
    assert collapse.mean_cosine(vectors[:1]) == 0.0
    assert collapse.relative_entropy(np.ones((3, 1))) == 1.0


def test_apart_golden():
    # Means (1, 0) and (1, 3); every vector is 1 from its own: 3 apart.
    source = np.array([[0.0, 0.0], [2.0, 0.0]])
    assert collapse.apart(source, source + np.array([0.0, 3.0])) == pytest.approx(3.0)
    assert collapse.apart(source, source) == 0.0
    assert np.isnan(collapse.apart(source[:1], source[1:]))


def test_agreement_golden():
    clusters = np.eye(3)
    own = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]])  # clusters 0, 1, 2, 0
    anchors = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 1.0, 0], [0, 1.0, 0]])  # 0, 1, 1, 1
    share, chance = collapse.agreement(anchors, own, clusters, k=1)
    assert share == 0.5
    # Cluster 0: half own it, a quarter is nearest to it; cluster 1: a quarter, three quarters.
    assert chance == pytest.approx(0.5 * 0.25 + 0.25 * 0.75)


def test_chance_is_what_shuffled_users_give():
    rng = np.random.default_rng(0)
    anchors, own = rng.normal(size=(2, 400, 8))
    clusters = rng.normal(size=(16, 8))
    expected = np.mean(
        [collapse.agreement(anchors, own[rng.permutation(400)], clusters, 2)[0] for _ in range(50)]
    )
    assert collapse.agreement(anchors, own, clusters, 2)[1] == pytest.approx(expected, abs=0.01)


HEALTHY = {
    "recall": 0.3,
    "clusters_8/source/dead": 0.1,
    "clusters_8/source/entropy": 0.9,
    "clusters_8/target/cosine": 0.2,
    "clusters_8/agreement": 0.5,
    "clusters_8/agreement_chance": 0.2,
}


@pytest.mark.parametrize(
    ("change", "about", "sentence"),
    [
        (
            {"clusters_8/source/dead": 0.95},
            "clusters_8/source/dead",
            "95% of the source clusters of K = 8",
        ),
        ({"clusters_8/source/entropy": 0.1}, "clusters_8/source/entropy", "has 10% of the highest"),
        ({"clusters_8/target/cosine": 0.99}, "clusters_8/target/cosine", "mean cosine 0.99"),
        ({"clusters_8/agreement": 0.22}, "agreement", "at best 1.1 times chance"),
    ],
)
def test_each_sign_is_found(change, about, sentence):
    signs = collapse.find(HEALTHY | change)
    assert list(signs) == [about]
    assert sentence in signs[about]


def test_one_granularity_that_agrees_is_enough():
    silent = {"clusters_4/agreement": 0.1, "clusters_4/agreement_chance": 0.1}
    assert collapse.find(HEALTHY | silent) == {}
