"""The data set job as one would write it at first: the programs it is measured against.

    python -m tests.benchmarks.pipelines_baselines lines LOGS OUT [Beam flags]
    python -m tests.benchmarks.pipelines_baselines polars LOGS OUT
    python -m tests.benchmarks.pipelines_baselines polars-tf LOGS OUT

All write the job's records: same users, histories, clicks, splits and number of negatives;
which negatives are drawn, and which users stage 1 holds out, differs.
`python -m tests.benchmarks.pipelines same` holds them to it.
"""

import bisect
import collections
import itertools
import json
import os
import pathlib
import random
import sys

TRAIN_UNTIL = 1_650_000_000 + int(0.8 * 7 * 86400)
VALIDATION_UNTIL = 1_650_000_000 + int(0.9 * 7 * 86400)
LONGEST, NEGATIVES, HOLDOUT = 100, 9, 0.1


def split_of(moment):
    return ("train", "validation", "test")[
        (moment >= TRAIN_UNTIL) + (moment >= VALIDATION_UNTIL)
    ]  # fmt: skip


def example(**features):
    import tensorflow as tf

    made = {}
    for name, value in features.items():
        if isinstance(value, bytes):
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        else:
            value = value if isinstance(value, list) else [value]
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


# Beam, one element a line.


def parse(line, domain):
    event = json.loads(line)
    return event["user_id"], (domain, event["timestamp"], event["item_id"])


class Ids:
    """Vocabularies and the popularity of target items, as a side input has them."""

    def __init__(self, counts):
        by_domain = collections.defaultdict(list)
        for (domain, item), count in counts:
            by_domain[domain].append((-count, item))
        self.ids = {
            domain: {item: place + 2 for place, (_, item) in enumerate(sorted(found))}
            for domain, found in by_domain.items()
        }
        target = sorted(by_domain["target"])
        self.items = list(range(2, len(target) + 2))
        self.edges = list(itertools.accumulate((-n) ** 0.75 for n, _ in target))


def records_of_user(element, vocabulary):
    user, events = element
    clicks = {"source": set(), "target": set()}
    for domain, moment, item in events:
        clicks[domain].add((moment, item))
    times, ids = {}, {}
    for domain, found in clicks.items():
        ordered = sorted(found)
        times[domain] = [moment for moment, _ in ordered]
        ids[domain] = [vocabulary.ids[domain].get(item, 1) for _, item in ordered]

    def history(domain, moment):
        stop = bisect.bisect_left(times[domain], moment)
        start = max(0, stop - LONGEST)
        return ids[domain][start:stop], times[domain][stop - 1] if stop else -1

    source, target = history("source", TRAIN_UNTIL), history("target", TRAIN_UNTIL)
    name = user.encode()
    if source[0] and target[0]:
        held = random.Random(user).random() < HOLDOUT
        yield f"stage1-{'validation' if held else 'train'}", example(
            user_id=name, cutoff_time=TRAIN_UNTIL, history_time=max(source[1], target[1]),
            source_history=source[0], target_history=target[0],
        )  # fmt: skip
    clicked = set(ids["target"])
    for moment, item in zip(times["target"], ids["target"], strict=True):
        source, target = history("source", moment), history("target", moment)
        if not source[0]:
            continue
        rng = random.Random(f"{user} {moment} {item}")
        candidates = [item]
        while len(candidates) <= NEGATIVES:
            [drawn] = rng.choices(vocabulary.items, cum_weights=vocabulary.edges)
            if drawn not in clicked and drawn not in candidates:
                candidates.append(drawn)
        rng.shuffle(candidates)
        yield f"stage2-{split_of(moment)}", example(
            user_id=name, request_time=moment, history_time=max(source[1], target[1]),
            source_history=source[0], target_history=target[0], candidates=candidates,
            labels=[int(c == item) for c in candidates], logged_scores=[],
        )  # fmt: skip


OUTPUTS = ("stage1-train", "stage1-validation", "stage2-train", "stage2-validation", "stage2-test")


def lines(folder, out, flags):
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner", *flags])) as pipeline:
        events = [
            pipeline
            | f"Read {domain}" >> beam.io.ReadFromText(f"{folder}/{domain}.jsonl")
            | f"Parse {domain}" >> beam.Map(parse, domain)
            for domain in ("source", "target")
        ] | "All" >> beam.Flatten()
        vocabulary = (
            events
            | "Training" >> beam.Filter(lambda e: e[1][1] < TRAIN_UNTIL)
            | "Item" >> beam.Map(lambda e: ((e[1][0], e[1][2]), 1))
            | "Count" >> beam.CombinePerKey(sum)
            | "List" >> beam.combiners.ToList()
            | "Ids" >> beam.Map(Ids)
        )
        records = (
            events
            | "By user" >> beam.GroupByKey()
            | "Records" >> beam.FlatMap(records_of_user, beam.pvalue.AsSingleton(vocabulary))
        )
        parts = records | "Split" >> beam.Partition(lambda r, n: OUTPUTS.index(r[0]), len(OUTPUTS))
        for name, part in zip(OUTPUTS, parts, strict=True):
            _ = (
                part
                | f"Value {name}" >> beam.Values()
                | f"Write {name}" >> beam.io.WriteToTFRecord(f"{out}/{name}", num_shards=4)
            )


# polars on one machine.


def polars_script(folder, out, *, plain):
    import numpy as np
    import polars as pl

    frames, vocabularies = {}, {}
    for domain in ("source", "target"):
        frame = pl.read_ndjson(
            f"{folder}/{domain}.jsonl",
            schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64},
        ).unique()
        vocabularies[domain] = (
            frame.filter(pl.col("timestamp") < TRAIN_UNTIL)
            .group_by("item_id")
            .len("count")
            .sort(["count", "item_id"], descending=[True, False])
            .with_row_index("id", offset=2)
        )
        frames[domain] = frame.join(
            vocabularies[domain].select("item_id", "id"), on="item_id", how="left"
        ).with_columns(pl.col("id").fill_null(1).cast(pl.Int64))
    users = pl.concat([f.select("user_id") for f in frames.values()]).unique().sort("user_id")
    users = users.with_row_index("user")
    arrays = {}
    for domain, frame in frames.items():
        ordered = frame.join(users, on="user_id").sort("user", "timestamp", "item_id")
        columns = ordered.select(pl.col("user", "timestamp", "id").cast(pl.Int64))
        arrays[domain] = tuple(columns[name].to_numpy() for name in ("user", "timestamp", "id"))

    def histories(user, moment):
        found = {}
        for domain, (owner, times, _) in arrays.items():
            stop = np.searchsorted(owner << 32 | times, user << 32 | moment)
            start = np.maximum(np.searchsorted(owner, user), stop - LONGEST)
            newest = np.where(stop > start, times[np.maximum(stop - 1, 0)], -1)
            found[domain] = start, stop, newest
        return found

    names = users["user_id"].to_arrow()
    user, moment, item = arrays["target"]
    found = histories(user, moment)
    rng = np.random.default_rng(0)
    kept = rng.permutation(np.flatnonzero(found["source"][1] > found["source"][0]))
    counts = vocabularies["target"]["count"].to_numpy().astype(float) ** 0.75
    candidates = sample(rng, counts, user[kept], item[kept], user << 32 | item)
    write = write_plain if plain else write_encoded
    split = (moment >= TRAIN_UNTIL).astype(int) + (moment >= VALIDATION_UNTIL)
    for code, name in enumerate(("train", "validation", "test")):
        chosen = split[kept] == code
        rows = kept[chosen]
        write(f"{out}/stage2-{name}", names, user[rows], arrays, found, rows,
              {"request_time": moment[rows]}, candidates[chosen], item[rows])  # fmt: skip
    everyone = np.arange(len(names))
    found = histories(everyone, np.full(len(everyone), TRAIN_UNTIL))
    both = rng.permutation(
        np.flatnonzero(np.all([stop > start for start, stop, _ in found.values()], axis=0))
    )
    held = rng.random(len(both)) < HOLDOUT
    for name, rows in (("train", both[~held]), ("validation", both[held])):
        write(f"{out}/stage1-{name}", names, rows, arrays, found, rows,
              {"cutoff_time": np.full(len(rows), TRAIN_UNTIL)})  # fmt: skip


def sample(rng, weights, user, item, clicked):
    """Each request's click among its negatives: drawn again where clicked or repeated."""
    import numpy as np

    edges, clicked = np.cumsum(weights), np.sort(clicked)

    def draw(shape):
        return np.searchsorted(edges, rng.random(shape) * edges[-1]) + 2

    drawn = np.concatenate([item[:, None], draw((len(user), NEGATIVES))], axis=1)
    while True:
        keys = user[:, None] << 32 | drawn
        place = np.minimum(np.searchsorted(clicked, keys), len(clicked) - 1)
        bad = clicked[place] == keys
        bad[:, 0] = False
        order = np.argsort(drawn, axis=1, kind="stable")
        ranked = np.take_along_axis(drawn, order, axis=1)
        again = np.zeros_like(bad)
        again[:, 1:] = ranked[:, 1:] == ranked[:, :-1]
        np.put_along_axis(again, order, again.copy(), axis=1)
        bad |= again
        bad[:, 0] = False
        if not bad.any():
            return rng.permuted(drawn, axis=1)
        drawn[bad] = draw(int(bad.sum()))


def write_plain(path, names, user, arrays, found, rows, times, candidates=None, item=None):
    import tensorflow as tf

    with tf.io.TFRecordWriter(path) as writer:
        for place, row in enumerate(rows.tolist()):
            features = {name: int(values[place]) for name, values in times.items()}
            for domain, (start, stop, _) in found.items():
                features[f"{domain}_history"] = arrays[domain][2][start[row] : stop[row]].tolist()
            features["history_time"] = int(max(newest[row] for *_, newest in found.values()))
            if candidates is not None:
                features["candidates"] = candidates[place].tolist()
                features["labels"] = (candidates[place] == item[place]).astype(int).tolist()
                features["logged_scores"] = []
            writer.write(example(user_id=names[int(user[place])].as_py().encode(), **features))


def write_encoded(path, names, user, arrays, found, rows, times, candidates=None, item=None):
    import numpy as np
    import pyarrow as pa

    from pipelines.records import examples
    from sitn_tf import schema

    encoded = {domain: examples.Slices.of(ids) for domain, (_, _, ids) in arrays.items()}
    stage = schema.STAGE1 if candidates is None else schema.STAGE2
    with open(path, "wb") as file:
        for begin in range(0, len(rows), 8192):
            part = slice(begin, begin + 8192)
            row = rows[part]
            columns = {name: values[part] for name, values in times.items()}
            columns["user_id"] = names.take(pa.array(user[part])).cast(pa.string())
            columns["history_time"] = np.max([f[2][row] for f in found.values()], axis=0)
            for domain, (start, stop, _) in found.items():
                columns[f"{domain}_history"] = encoded[domain].rows(start[row], stop[row])
            if candidates is not None:
                width = np.full(len(row), NEGATIVES + 1)
                labels = (candidates[part] == item[part, None]).astype(np.int64)
                columns["candidates"] = examples.Ragged.of_lengths(candidates[part].ravel(), width)
                columns["labels"] = examples.Ragged.of_lengths(labels.ravel(), width)
                none = np.empty(0, np.float32)
                columns["logged_scores"] = examples.Ragged.of_lengths(none, width * 0)
            features = schema.STAGE_FEATURES[stage]
            file.write(examples.tfrecords(examples.serialize(features, columns)))


def main():
    what, folder, out, *flags = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    if what == "lines":
        lines(pathlib.Path(folder), out, flags)
    else:
        polars_script(folder, out, plain=what == "polars-tf")


if __name__ == "__main__":
    # Workers import this module by its name: what they get must not come from __main__.
    from tests.benchmarks import pipelines_baselines

    pipelines_baselines.main()
