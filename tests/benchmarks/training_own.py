"""What tests/benchmarks/training.py --own measures of this project alone."""

import pathlib
import statistics
import time

import numpy as np
import tensorflow as tf

from sitn_tf import config, data, losses, schema
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.encoder import SequenceEncoder
from sitn_tf.models.registry import make_scorer
from sitn_tf.sections import EncoderConfig
from tests.benchmarks.training_data import CANDIDATES, HISTORY, ITEMS, write_synthetic


def compare_compression(folder: pathlib.Path, requests: int, rounds: int) -> None:
    """Prints size and reading rate of the synthetic records, plain and gzipped."""

    def read(path: pathlib.Path, compression: str) -> float:
        files = sorted(str(file) for file in (path / schema.STAGE2).iterdir())
        records = tf.data.TFRecordDataset(files, compression)
        batches = (
            records.batch(256).map(lambda raw: data.parse(raw, schema.STAGE2_FEATURES)).prefetch(2)
        )
        began = time.process_time()
        for _ in batches:
            pass
        return requests * CANDIDATES / (time.process_time() - began)

    kinds = ("", "GZIP")
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind in kinds:
        write_synthetic(folder / f"records{kind}", requests, kind)
    for _ in range(rounds):
        for kind in kinds:
            rates[kind].append(read(folder / f"records{kind}", kind))
    print("\nrecords: bytes a request, candidates a CPU second")
    for kind in kinds:
        files = (folder / f"records{kind}" / schema.STAGE2).iterdir()
        size = sum(file.stat().st_size for file in files) / requests
        print(f"  {kind or 'plain':<6} {size:>6,.0f} {statistics.median(rates[kind]):>10,.0f}")


def compare_encoders(rounds: int, heads: int, dim: int = 64, batch: int = 1024) -> None:
    """Prints the rate of stage 1's encoders, forward and backward, beside a large product's.

    Counted are the products of Eq. 1: four projections, Q K^T and its values, and twice as
    many backwards.
    """
    length = HISTORY
    encoder = SequenceEncoder(EncoderConfig(heads=heads), dim, length)
    sequence = tf.random.normal([batch, length, dim])
    mask = tf.ones([batch, length], tf.bool)
    encoder(sequence, mask)
    square = tf.random.normal([2048, 2048])

    @tf.function
    def encode() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(sequence)
            total = tf.reduce_sum(encoder(sequence, mask) ** 2)
        gradients = tape.gradient(total, [sequence, *encoder.trainable_variables])
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    @tf.function
    def multiply() -> tf.Tensor:
        return tf.matmul(square, square)[0, 0]

    counted = {
        encode: 3 * 2 * batch * (4 * length * dim**2 + 2 * length**2 * dim),
        multiply: 2 * 2048**3,
    }
    rates: dict = {program: [] for program in counted}
    for _ in range(rounds + 1):
        for program, operations in counted.items():
            wall, spent = time.monotonic(), time.process_time()
            program().numpy()
            wall, spent = time.monotonic() - wall, time.process_time() - spent
            rates[program].append((operations / wall / 1e9, operations / spent / 1e9))
    ours, product = (np.array(rates[program][1:]) for program in counted)
    share = np.median(ours / product, axis=0)
    medians = (*np.median(ours, axis=0), *np.median(product, axis=0))
    print(
        "\nencoders, {} heads: {:.0f} GFLOP/s ({:.0f} a CPU second) of {:.0f} ({:.0f}): "
        "{:.0%} ({:.0%})".format(heads, *medians, *share)
    )


def compare_candidates(rounds: int, rows: int = 64) -> None:
    """Prints a step of DIEN with one candidate, with all, and with each in a request of its own.

    The last is what a GRU and an AUGRU for each candidate would cost. Forward and backward, with
    the target history alone and without the auxiliary loss, which no candidate changes.
    """
    chosen = ("model.name=dien", "model.use_source=false", "dien.auxiliary_weight=0")
    settings = config.override(config.default(), ["items.side_features=", *chosen])
    names = [""] * ITEMS
    table = ItemTable(schema.TARGET, names, names, np.zeros(ITEMS, np.int64), {}, {})
    scorer = make_scorer(settings, {schema.TARGET: table}, HISTORY)
    rng = np.random.default_rng(0)

    def step(requests: int, candidates: int):
        shown, history = (
            tf.constant(rng.integers(schema.FIRST_ID, ITEMS, (requests, length)))
            for length in (candidates, HISTORY)
        )
        inputs = {schema.TARGET_HISTORY.name: history, schema.CANDIDATES.name: shown}

        @tf.function
        def run() -> tf.Tensor:
            with tf.GradientTape() as tape:
                logits = scorer(inputs, training=True)
                loss = tf.reduce_mean(losses.click_loss(tf.zeros_like(shown), logits, shown > 0))
            gradients = tape.gradient(loss, scorer.trainable_variables)
            return tf.add_n([tf.reduce_sum(tf.convert_to_tensor(g)) for g in gradients])

        return run

    sizes = {"one": (rows, 1), "all": (rows, CANDIDATES), "apart": (rows * CANDIDATES, 1)}
    steps = {name: step(*size) for name, size in sizes.items()}
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, run in steps.items():
            began = time.process_time()
            run().numpy()
            if number:
                spent[name].append(1000 * (time.process_time() - began))
    medians = {name: statistics.median(times) for name, times in spent.items()}
    print(
        "\nDIEN, CPU ms of a step of {} requests, histories of {}: {:.0f} with one candidate, "
        "{:.0f} with {}, {:.0f} with each in a request of its own".format(
            rows, HISTORY, medians["one"], medians["all"], CANDIDATES, medians["apart"]
        )
    )
