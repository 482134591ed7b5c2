"""Do stage 1's clusters find the interests that synthetic logs were made from?

    python -m tests.benchmarks.planted --run_dir=RUN/stage1 --logs=LOGS

Normalised mutual information, 0 for independent and 1 for equal, between the planted interest
of each item and the cluster nearest to it; and between the planted interest and the *pair* of
matched clusters, over the items of both domains together, which is high only if an interest
has its clusters of both domains in the same pairs.
"""

import gzip
import json
import pathlib

import numpy as np
from absl import flags

from sitn_tf import cli, quiet, schema
from sitn_tf.evaluation import collapse, interest_clusters

FLAGS = flags.FlagValues()
flags.DEFINE_string("run_dir", None, "A finished stage-1 run directory.", flag_values=FLAGS)
flags.DEFINE_string("logs", None, "What pipelines.synthetic wrote.", flag_values=FLAGS)
_USERS = flags.DEFINE_integer("users", 20_000, "That make the clusters.", 1, flag_values=FLAGS)


def read_planted(logs: pathlib.Path, domain: str) -> dict[str, int]:
    """The planted interest of each raw item id."""
    with gzip.open(logs / f"{domain}_items.jsonl.gz", "rt") as lines:
        return {row["item_id"]: int(row["interest"]) for row in map(json.loads, lines)}


def main(_: list[str]) -> None:
    """Prints a line a granularity."""
    run_dir = pathlib.Path(cli.require(FLAGS, "run_dir"))
    logs = pathlib.Path(cli.require(FLAGS, "logs"))
    quiet.import_tensorflow()
    from sklearn.metrics import normalized_mutual_info_score as information

    from sitn_tf import trained_models
    from sitn_tf.evaluation import instances

    run = trained_models.load_pretrainer(run_dir)
    model = run.model
    users = instances.read_users(model, run.data_dir, schema.TRAIN, _USERS.value)
    vectors, planted = {}, {}
    for domain in schema.DOMAINS:
        of_item = read_planted(logs, domain)
        ids = run.tables[domain].ids[schema.FIRST_ID :]
        rows = [row for row, item in enumerate(ids) if item in of_item]
        vectors[domain] = instances.item_instances(model, domain, run.tables[domain].size)[rows]
        planted[domain] = np.array([of_item[ids[row]] for row in rows])
    for space in model.i2c:
        clusters = collapse.clusters_of(space, users.instances)
        nearest = {d: collapse.first_choice(vectors[d], clusters.new[d]) for d in schema.DOMAINS}
        alone = [information(planted[d], nearest[d]) for d in schema.DOMAINS]
        matched = interest_clusters.match(clusters.new[schema.SOURCE], clusters.new[schema.TARGET])
        pairs = np.concatenate([matched[nearest[schema.SOURCE]], nearest[schema.TARGET]])
        both = np.concatenate([planted[d] for d in schema.DOMAINS])
        print(
            f"K = {len(matched)}: source {alone[0]:.3f}, target {alone[1]:.3f}, matched pairs "
            f"{information(both, pairs):.3f}"
        )


if __name__ == "__main__":
    cli.run(main, FLAGS)
