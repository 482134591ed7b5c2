"""Interests you can look at: a stage-1 run → its clusters, matched across domains, and Fig. 3.

    python -m sitn_tf.interests --run_dir=RUN/stage1 [--user=ID]

RUN/stage1/interests/
  clusters.json    each granularity's pairs of clusters with their nearest items
  clusters.md      the same for people
  clusters.png     t-SNE of the clusters of both domains, a panel a granularity (Fig. 3)

A cluster is described by the items whose instances, each a history of that one item, are
nearest to it. With --user the command prints that user's top-k interests instead (Eq. 6).
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from sitn_tf import cli, quiet, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation.collapse import Clusters, clusters_of, first_choice, unit_rows

if TYPE_CHECKING:
    from sitn_tf.item_tables import ItemTable
    from sitn_tf.models.pretrainer import Pretrainer

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
BATCH = 512
SCORED_AT_ONCE = 8192


@dataclasses.dataclass(frozen=True)
class Users:
    """Instances of n users.

    Attributes:
      ids: `[n]` raw ids.
      instances: p `[n, D]` by domain.
    """

    ids: list[str]
    instances: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A cluster of the source domain and the one of the target domain that it is matched with.

    Attributes:
      source, target: number of the cluster in its domain.
      cosine: of the two.
      users: of each domain, whose first choice the cluster is.
      items: titles of the nearest items, by domain.
    """

    source: int
    target: int
    cosine: float
    users: dict[str, int]
    items: dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Granularity:
    """All pairs of one K, the most alike first.

    Attributes:
      clusters: K.
      same_pair: share of users whose first choices in both domains are a pair.
      same_pair_chance: the same if users were paired at random.
    """

    clusters: int
    same_pair: float
    same_pair_chance: float
    pairs: list[Pair]


def match(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The one-to-one matching of clusters with the largest sum of cosines.

    Args:
      source, target: u `[K, D]`.

    Returns:
      `[K]`: the target cluster of each source cluster.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-(unit_rows(source) @ unit_rows(target).T))
    matched = np.empty(len(source), np.int64)
    matched[rows] = columns
    return matched


def same_pair(first: Mapping[str, np.ndarray], matched: np.ndarray) -> tuple[float, float]:
    """Share of users whose first choices are matched, and what random pairing would give.

    Args:
      first: `[n]` first choices by domain.
      matched: `[K]` as of `match`.
    """
    ours = matched[first[schema.SOURCE]]
    theirs = first[schema.TARGET]
    size = len(matched)
    chance = np.bincount(ours, minlength=size) @ np.bincount(theirs, minlength=size)
    return float(np.mean(ours == theirs)), float(chance / len(ours) ** 2)


def nearest(vectors: np.ndarray, clusters: np.ndarray, count: int) -> np.ndarray:
    """Rows of `[R, D]` vectors nearest to each of `[K, D]` clusters by cosine: `[K, count]`."""
    cosines = unit_rows(clusters) @ unit_rows(vectors).T
    return np.argsort(-cosines, axis=1, kind="stable")[:, :count]


def describe(
    space: Clusters,
    items: Mapping[str, np.ndarray],
    titles: Mapping[str, Sequence[str]],
    count: int,
) -> Granularity:
    """Matches and describes one interest space.

    Args:
      items: `[R, D]` instances of one-item histories by domain; a row of zeros is left out.
      titles: R of them by domain.
      count: items that describe a cluster.
    """
    matched = match(space.new[schema.SOURCE], space.new[schema.TARGET])
    first = {d: first_choice(space.instances[d], space.new[d]) for d in schema.DOMAINS}
    sizes = {d: np.bincount(first[d], minlength=len(matched)) for d in schema.DOMAINS}
    shown = {}
    for domain in schema.DOMAINS:
        known = np.flatnonzero(np.linalg.norm(items[domain], axis=1) > 0)
        rows = known[nearest(items[domain][known], space.new[domain], count)]
        shown[domain] = [[titles[domain][row] for row in cluster] for cluster in rows]
    cosines = np.sum(
        unit_rows(space.new[schema.SOURCE]) * unit_rows(space.new[schema.TARGET])[matched],
        axis=1,
    )
    pairs = [
        Pair(
            source=int(s),
            target=int(matched[s]),
            cosine=float(cosines[s]),
            users={
                schema.SOURCE: int(sizes[schema.SOURCE][s]),
                schema.TARGET: int(sizes[schema.TARGET][matched[s]]),
            },
            items={
                schema.SOURCE: shown[schema.SOURCE][s],
                schema.TARGET: shown[schema.TARGET][matched[s]],
            },
        )
        for s in np.argsort(-cosines, kind="stable")
    ]
    share, chance = same_pair(first, matched)
    return Granularity(len(matched), share, chance, pairs)


def markdown(granularities: Sequence[Granularity]) -> str:
    """All pairs as Markdown tables."""
    parts = ["# Interest clusters, matched across domains\n"]
    for space in granularities:
        parts.append(
            f"\n## K = {space.clusters}\n\n{space.same_pair:.1%} of the users have their first "
            f"choices of both domains in one pair; {space.same_pair_chance:.1%} would by chance.\n"
        )
        parts.append("| source | target | cosine | users | source items | target items |")
        parts.append("|---|---|---|---|---|---|")
        for pair in space.pairs:
            listed = [" · ".join(map(_cell, pair.items[d])) for d in schema.DOMAINS]
            users = " / ".join(str(pair.users[d]) for d in schema.DOMAINS)
            parts.append(
                f"| {pair.source} | {pair.target} | {pair.cosine:.2f} | {users} | {listed[0]} | "
                f"{listed[1]} |"
            )
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def draw(
    spaces: Sequence[Clusters], granularities: Sequence[Granularity], path: pathlib.Path
) -> None:
    """Writes Fig. 3: t-SNE of both domains' clusters, matched ones joined by a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from sklearn.manifold import TSNE

    columns = min(len(spaces), 2)
    rows = -(-len(spaces) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(5 * columns, 4.6 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(spaces) :]:
        axis.remove()
    for axis, space, described in zip(axes.flat, spaces, granularities, strict=False):
        size = described.clusters
        both = unit_rows(np.concatenate([space.new[d] for d in schema.DOMAINS]))
        perplexity = min(30.0, (2 * size - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(both)
        for pair in described.pairs:
            ends = points[[pair.source, size + pair.target]]
            axis.plot(*ends.T, color="0.8", linewidth=0.8, zorder=1)
        for number, (domain, colour) in enumerate(
            zip(schema.DOMAINS, ("tab:blue", "tab:orange"), strict=True)
        ):
            part = points[number * size : (number + 1) * size]
            axis.scatter(*part.T, s=14, color=colour, label=domain, zorder=2)
        axis.set_title(f"K = {size}; {described.same_pair:.0%} of users within a pair")
        axis.set_xticks([])
        axis.set_yticks([])
    axes.flat[0].legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def top_interests(instance: np.ndarray, clusters: np.ndarray, k: int) -> list[tuple[int, float]]:
    """The k clusters of `[K, D]` nearest to an instance `[D]`, with their cosines (Eq. 6)."""
    cosines = unit_rows(clusters) @ unit_rows(instance[None])[0]
    best = np.argsort(-cosines, kind="stable")[:k]
    return [(int(c), float(cosines[c])) for c in best]


def read_users(model: "Pretrainer", data_dir: pathlib.Path, split: str, most: int) -> Users:
    """Encodes the first users of a stage-1 split."""
    from sitn_tf import data

    ids: list[str] = []
    parts: dict[str, list[np.ndarray]] = {domain: [] for domain in schema.DOMAINS}
    for batch in data.read_split(data_dir, schema.STAGE1, split, BATCH).take(-(-most // BATCH)):
        for domain, instances in zip(schema.DOMAINS, model(batch), strict=True):
            parts[domain].append(instances.numpy())
        ids += [user.decode() for user in batch[schema.USER_ID.name].numpy()]
    return Users(ids[:most], {d: np.concatenate(parts[d])[:most] for d in schema.DOMAINS})


def item_instances(model: "Pretrainer", domain: str) -> np.ndarray:
    """`[R, D]`: the instance of each item's one-item history; zeros for padding and unknown."""
    import tensorflow as tf

    rows = model.items[domain].table.size
    every = tf.range(rows, dtype=tf.int64)[:, None]
    parts = [
        model.instance(domain, every[first : first + SCORED_AT_ONCE], unit=True).numpy()
        for first in range(0, rows, SCORED_AT_ONCE)
    ]
    instances = np.concatenate(parts)
    instances[: schema.FIRST_ID] = 0.0
    return instances


def main(_: list[str]) -> None:
    """Loads the run, describes its clusters and writes or prints them."""
    run_dir = pathlib.Path(cli.require(FLAGS, "run_dir"))
    quiet.import_tensorflow()
    _check_extras()
    from sitn_tf import runs

    run = runs.load_pretrainer(run_dir, _DATA_DIR.value)
    model, data_dir = run.model, run.data_dir
    titles = {domain: shown_names(table) for domain, table in run.tables.items()}
    users = read_users(model, data_dir, schema.TRAIN, _USERS.value)
    spaces = [clusters_of(space, users.instances) for space in model.i2c]
    if not spaces:
        raise InputError(
            f"{run_dir} has no interest spaces: it was trained with contrast.i2c_weight=0"
        )
    items = {domain: item_instances(model, domain) for domain in schema.DOMAINS}
    granularities = [describe(space, items, titles, _ITEMS.value) for space in spaces]
    if _USER.value is not None:
        print(_tell(_USER.value, _find_user(model, data_dir, users), spaces, granularities))
        return
    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    described = [dataclasses.asdict(space) for space in granularities]
    whole_files.write_json(folder / "clusters.json", described)
    whole_files.write_text(folder / "clusters.md", markdown(granularities))
    draw(spaces, granularities, folder / "clusters.png")
    for space in granularities:
        print(
            f"K = {space.clusters}: {space.same_pair:.1%} of {len(users.ids)} users within one "
            f"pair (chance {space.same_pair_chance:.1%})"
        )
    print(
        f"wrote {folder}/clusters.md, clusters.json and clusters.png\n"
        f"next: python -m sitn_tf.interests --run_dir={run_dir} --user={users.ids[0]}"
    )


def _check_extras() -> None:
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"sitn_tf.interests needs {error.name}: pip install 'sitn_tf[interests]'"
        ) from error


def shown_names(table: "ItemTable") -> list[str]:
    """What an item is called: its title, or its raw id where it has none."""
    return [title or item for title, item in zip(table.titles, table.ids, strict=True)]


def _find_user(model: "Pretrainer", data_dir: pathlib.Path, users: Users) -> dict[str, np.ndarray]:
    """Instances of --user by domain.

    Raises:
      InputError: stage 1 has no such user.
    """
    for split in schema.STAGE1_SPLITS:
        everyone = read_users(model, data_dir, split, 2**31)
        if _USER.value in everyone.ids:
            row = everyone.ids.index(_USER.value)
            return {domain: everyone.instances[domain][row] for domain in schema.DOMAINS}
    raise InputError(
        f"--user={_USER.value} is not among stage 1's users (those with both histories), for "
        f"example {users.ids[0]} is"
    )


def _tell(
    user: str,
    instances: Mapping[str, np.ndarray],
    spaces: Sequence[Clusters],
    granularities: Sequence[Granularity],
) -> str:
    """A user's top-k interests of each domain and granularity, as text."""
    lines = [f"interests of {user}"]
    for space, described in zip(spaces, granularities, strict=True):
        for domain in schema.DOMAINS:
            items: dict[int, Any] = {getattr(p, domain): p.items[domain] for p in described.pairs}
            for cluster, cosine in top_interests(instances[domain], space.new[domain], space.top_k):
                shown = " · ".join(items[cluster])
                lines.append(
                    f"  {domain}, K = {described.clusters}, cluster {cluster} "
                    f"(cosine {cosine:.2f}): {shown}"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, FLAGS)
