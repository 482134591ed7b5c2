"""Interests you can look at: a stage-1 run → its clusters, matched across domains, and Fig. 3.

    python -m sitn_tf.interests --run_dir=RUN/stage1 [--user=ID]

RUN/stage1/interests/
  clusters.json    each granularity's pairs of clusters with their nearest items
  clusters.html    the same for people, with a map of both domains' clusters by t-SNE (Fig. 3)
  clusters.md      the page without its maps

With --user the command prints that user's top-k interests instead (Eq. 6).
"""

import dataclasses
import pathlib

from absl import flags

from sitn_tf import cli, extras, quiet, whole_files
from sitn_tf.pages import documents

FLAGS = flags.FlagValues()
flags.DEFINE_string("run_dir", None, "A finished stage-1 run directory.", flag_values=FLAGS)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Data set directory; that of the run if not given.", flag_values=FLAGS
)
_USERS = flags.DEFINE_integer(
    "users", 20_000, "Training users that make the clusters, at most.", 1, flag_values=FLAGS
)
_ITEMS = flags.DEFINE_integer("items", 6, "Items that describe a cluster.", 1, flag_values=FLAGS)
_USER = flags.DEFINE_string("user", None, "Raw id: print this user's interests.", flag_values=FLAGS)

FOLDER = "interests"


def main(_: list[str]) -> None:
    """Loads the run, describes its clusters and writes or prints them."""
    run_dir = pathlib.Path(cli.require(FLAGS, "run_dir"))
    quiet.import_tensorflow()
    extras.check("sitn_tf.interests", "interests", "matplotlib", "sklearn")
    from sitn_tf import trained_models
    from sitn_tf.evaluation import cluster_sections, interest_clusters

    run = trained_models.load_pretrainer(run_dir, _DATA_DIR.value)
    interests = interest_clusters.find_interests(run, _USERS.value, _ITEMS.value)
    if _USER.value is not None:
        print(interest_clusters.tell(run, interests, _USER.value))
        return
    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    described = [dataclasses.asdict(space) for space in interests.granularities]
    whole_files.write_json(folder / "clusters.json", described)
    command = cli.command(FLAGS, "sitn_tf.interests")
    documents.write(cluster_sections.content(run, interests, command), folder / "clusters")
    print(f"clusters of {len(interests.users.ids):,} users")
    for space in interests.granularities:
        print(f"K = {space.clusters}: {cluster_sections.answer(space)}")
    print(f"wrote {folder}/clusters.html, clusters.md and clusters.json\nnext: {command} --user=ID")


if __name__ == "__main__":
    cli.run(main, FLAGS)
