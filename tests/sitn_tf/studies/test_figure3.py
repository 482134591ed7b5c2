from sitn_tf.pages.figures import Picture
from sitn_tf.studies import figure3


def test_the_section_has_a_row_a_seed_and_granularity():
    near = {"distance": 0.25, "shuffled": 0.5, "ratio": 0.5, "p": 0.001}
    one = {"arm": "sitn", "seed": 1, "clusters": 64, "same_pair": 0.4, "same_pair_chance": 0.02}
    far = one | {"clusters": 128, "proximity": near | {"p": 0.4}}
    section = figure3.section([one | {"proximity": near}, far])
    assert section.answer.startswith("In 1 of 2 spaces clusters lie nearer")
    [table] = section.body
    pictured = figure3.section([far], [Picture("K = 128", "<svg></svg>")])
    assert pictured.body[1].startswith("t-SNE of the clusters of both domains, seed 1")
    assert pictured.body[2].title == "K = 128"
    assert table.head[:7] == ["arm", "seed", "K", "to the nearest", "shuffled", "ratio", "p"]
    assert table.rows[0][2:] == ["64", "0.250", "0.500", "0.500", "0.001", "40.0%", "2.0%"]
