import json
import re

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import interests, schema, train
from sitn_tf.evaluation import (
    cluster_pictures,
    cluster_sections,
    instances,
    interest_clusters,
)
from sitn_tf.evaluation.collapse import Clusters
from tests.commands import run_main


def _space(rng, clusters=5, users=40):
    """Target clusters are the source's in another order; users sit at their cluster."""
    u = np.linalg.qr(rng.normal(size=(8, 8)))[0][:clusters]
    order = rng.permutation(clusters)
    own = rng.integers(clusters, size=users)
    place = np.argsort(order)
    instances = {schema.SOURCE: u[own], schema.TARGET: u[order][place[own]]}
    pi = {d: np.eye(clusters)[own] for d in schema.DOMAINS}
    return Clusters(pi, {schema.SOURCE: u, schema.TARGET: u[order]}, instances, 2), order


def test_matching_finds_the_permutation():
    space, order = _space(np.random.default_rng(0))
    matched = interest_clusters.match(space.new[schema.SOURCE], space.new[schema.TARGET])
    np.testing.assert_array_equal(order[matched], np.arange(5))


def test_same_pair_golden():
    # Users' pairs (0, 1), (1, 0), (1, 1) under the matching 0 -> 1, 1 -> 0: two of three fit.
    first = {schema.SOURCE: np.array([0, 1, 1]), schema.TARGET: np.array([1, 0, 1])}
    share, chance = interest_clusters.same_pair(first, np.array([1, 0]))
    assert share == pytest.approx(2 / 3)
    # Matched choices are 1, 0, 0, the target's 1, 0, 1: (1 * 2 + 2 * 1) / 9 agree by chance.
    assert chance == pytest.approx(4 / 9)


def test_clusters_are_described_by_their_nearest_items():
    rng = np.random.default_rng(1)
    space, _ = _space(rng)
    items = {d: np.concatenate([np.zeros((2, 8)), space.new[d]]) for d in schema.DOMAINS}
    titles = {d: ["pad", "unknown", *(f"{d} {i}" for i in range(5))] for d in schema.DOMAINS}
    described = interest_clusters.describe(space, items, titles, count=1)
    assert described.same_pair == 1.0
    assert described.apart == pytest.approx(0.0, abs=1e-12)
    assert described.clusters_apart == pytest.approx(0.0, abs=1e-12)
    assert described.proximity.distance == pytest.approx(0.0, abs=1e-6)
    for pair in described.pairs:
        assert pair.cosine == pytest.approx(1.0)
        assert pair.items == {
            schema.SOURCE: [f"source {pair.source}"],
            schema.TARGET: [f"target {pair.target}"],
        }
        assert pair.users[schema.SOURCE] == pair.users[schema.TARGET]
    table = cluster_sections.pairs(described)
    first = described.pairs[0]
    assert len(table.rows) == 5
    assert table.rows[0] == [
        f"{first.source} – {first.target}",
        "1.00",
        f"{first.users[schema.SOURCE]} / {first.users[schema.TARGET]}",
        f"source {first.source}",
        f"target {first.target}",
    ]
    assert cluster_sections.answer(described).startswith("100.0% of the users")


def test_numbered_pairs_are_in_the_picture_and_in_the_table():
    """The pair of clusters that nobody chose first in one domain has no number."""
    space, _ = _space(np.random.default_rng(2), clusters=7, users=200)
    items = {d: np.concatenate([np.zeros((2, 8)), space.new[d]]) for d in schema.DOMAINS}
    titles = {d: ["pad", "unknown", *(f"{d} <{i}>" for i in range(7))] for d in schema.DOMAINS}
    described = interest_clusters.describe(space, items, titles, count=2)
    described.pairs[1].users[schema.TARGET] = 0
    named = cluster_pictures.named_pairs(described)
    assert named == [described.pairs[0], *described.pairs[2:6]]
    table = cluster_pictures.titles(described)
    assert table.head == ["pair", "items", "users", "cosine"]
    first = named[0]
    assert table.rows[:2] == [
        [f"1 {d}", " · ".join(first.items[d]), str(first.users[d]), "1.00"] for d in schema.DOMAINS
    ]
    first.items[schema.TARGET][0] = "very " * 20
    assert f" {'very ' * 7}very… ·" in f" {cluster_pictures.titles(described).rows[1][1]}"
    picture = cluster_pictures.picture_at(np.arange(28.0).reshape(14, 2), described)
    assert [row[0][0] for row in table.rows] == list("1122334455")
    for number in "12345":
        assert len(re.findall(rf"<text[^>]*>{number}</text>", picture.svg)) == 2
    assert f"source &lt;{first.source}&gt;" in picture.svg
    assert picture.title.startswith("K = 7; 100% of users within a pair, nearest 0.00 times")


def test_a_users_top_interests():
    assert interest_clusters.top_interests(np.array([2.0, 1.0]), np.eye(2), 2) == [
        (0, pytest.approx(2 / 5**0.5)),
        (1, pytest.approx(1 / 5**0.5)),
    ]


@pytest.fixture(scope="module")
def run_dir(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interests")
    run_main(
        train,
        f"--data_dir={small}",
        "--stage=1",
        f"--workdir={folder}",
        "--preset=tiny",
        "--set=stage1.epochs=1",
    )
    return folder / "stage1"


def test_the_command_writes_and_tells(run_dir, capsys):
    run_main(interests, f"--run_dir={run_dir}")
    described = json.loads((run_dir / "interests" / "clusters.json").read_text())
    assert [len(space["pairs"]) for space in described] == [4, 8]
    titles = described[0]["pairs"][0]["items"]["source"]
    assert all(title.startswith("title of s") for title in titles)
    page = (run_dir / "interests" / "clusters.html").read_text()
    assert page.count("<svg") == 2
    written = (run_dir / "interests" / "clusters.md").read_text()
    assert written.count("of the users have their first choices of both domains in one pair") == 2
    assert f"python -m sitn_tf.interests --run_dir={run_dir}" in written
    said = capsys.readouterr().out
    assert "wrote" in said
    assert "times their spread apart" in said
    assert said.count("times what it would with the domains shuffled") == 2
    run_main(interests, f"--run_dir={run_dir}", "--user=u3")
    told = capsys.readouterr().out
    # Two granularities, two domains, and of each as many as a user has views.
    assert told.startswith("interests of u3")
    assert told.count("cosine") == 4


def test_one_user_is_found_by_id_and_encoded_alone(small):
    encoded = []

    def model(batch):
        encoded.append(len(batch["user_id"]))
        return [tf.cast(batch[name][:, :1], tf.float32) for name in ("source_history",) * 2]

    every = instances.read_users(model, small, schema.TRAIN)
    encoded.clear()
    found = instances.read_user(model, small, every.ids[2])
    assert (found.ids, encoded) == (every.ids[2:3], [1])
    np.testing.assert_array_equal(found.instances["source"], every.instances["source"][2:3])
    assert instances.read_user(model, small, "nobody") is None


def test_an_unknown_user_is_named(run_dir):
    from sitn_tf.errors import InputError

    with pytest.raises(InputError, match="--user=nobody is not among stage 1's users"):
        run_main(interests, f"--run_dir={run_dir}", "--user=nobody")
