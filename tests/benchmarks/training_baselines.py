"""The competitors of tests/benchmarks/training.py, each run by the Python of its own environment.

    python training_baselines.py deepctr_bst ROWS.npz --batch=2560 --seconds=3 ...

Imports nothing of this project, whose packages those environments don't have. ROWS.npz holds
one row a candidate: `history` `[R, L]` int64, oldest first, 0 padded at the end, `length`, `item`
and `label`, `[R]`.

A worker says on standard output, one JSON line each, that it is ready, and after every line on
standard input how many candidates it trained on, in how many seconds, with what mean loss. With
`--judge=VALIDATION.npz --epochs=10` it says instead the AUC of those rows after each epoch.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Rows = dict[str, np.ndarray]
Turn = Callable[[float], tuple[int, float]]
"""Trains for about so many seconds → candidates, and the mean loss."""


class Competitor(NamedTuple):
    """A model that its library trains.

    Attributes:
      turn: see Turn.
      epoch: trains on every row once, in an order of the library's own.
      judged: rows to score → a function of nothing, their scores `[R]`; what their form in the
        library takes is done before.
    """

    turn: Turn
    epoch: Callable[[], None]
    judged: Callable[[Rows], Callable[[], np.ndarray]]


def serve(make: Callable[[], Turn], seconds: float) -> None:
    """Answers each line of standard input by a turn, after two short ones to warm up."""
    answer = _answers()
    turn = make()
    _, loss = turn(0.0)
    turn(0.0)
    answer(first_loss=loss)
    for _ in sys.stdin:
        began = time.monotonic()
        candidates, loss = turn(seconds)
        answer(candidates=candidates, seconds=time.monotonic() - began, loss=loss)


def judge(make: Callable[[], Competitor], validation: Rows, epochs: int, patience: int) -> None:
    """Says when model and rows are ready, and the AUC after each epoch until it stops rising."""
    answer = _answers()
    competitor = make()
    scores = competitor.judged(validation)
    answer()
    best, since = 0.0, 0
    for _ in range(epochs):
        competitor.epoch()
        reached = auc(validation["label"], scores())
        answer(auc=reached)
        best, since = (reached, 0) if reached > best else (best, since + 1)
        if since >= patience:
            return


def _answers() -> Callable[..., None]:
    """Writes lines of JSON to what was standard output.

    Libraries write what they like there, so it becomes standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: float) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    return answer


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Of rows, equal scores counting half."""
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[group]
    clicked = labels > 0
    positives = int(clicked.sum())
    negatives = len(labels) - positives
    return float((rank[clicked].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def deepctr(model_name: str, rows: Rows, options: argparse.Namespace) -> Competitor:
    """A model of DeepCTR by Keras' `fit`, as its documentation's examples do."""
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat
    from deepctr.models import BST, DIN, WDL, DeepFM

    history, items = rows["history"], int(options.items)
    columns = [
        SparseFeat("item", items, embedding_dim=options.dim),
        VarLenSparseFeat(
            SparseFeat("hist_item", items, embedding_dim=options.dim, embedding_name="item"),
            maxlen=history.shape[1],
            length_name="seq_length",
        ),
    ]
    hidden = tuple(options.mlp)
    if model_name == "bst":
        model = BST(columns, ["item"], att_head_num=options.heads, dnn_hidden_units=hidden)
    elif model_name in ("deepfm", "wide_deep"):
        # The history is a field, the mean of its items.
        make = DeepFM if model_name == "deepfm" else WDL
        model = make(columns, columns, dnn_hidden_units=hidden)
    else:
        model = DIN(
            columns,
            ["item"],
            dnn_hidden_units=hidden,
            att_hidden_size=tuple(options.unit),
            att_activation=options.unit_activation,
        )
    model.compile("adam", "binary_crossentropy")

    def inputs_of(rows: Rows) -> Rows:
        named = {"item": "item", "hist_item": "history", "seq_length": "length"}
        return {theirs: rows[name] for theirs, name in named.items()}

    inputs = inputs_of(rows)
    speed, place = 0.0, 0

    def turn(seconds: float) -> tuple[int, float]:
        nonlocal speed, place
        steps = max(2, round(seconds * speed))
        count = steps * options.batch
        chosen = np.arange(place, place + count) % len(rows["label"])
        place += count
        part = {name: values[chosen] for name, values in inputs.items()}
        began = time.monotonic()
        fitted = model.fit(
            part, rows["label"][chosen], batch_size=options.batch, epochs=1, verbose=0
        )
        speed = steps / (time.monotonic() - began)
        return count, float(fitted.history["loss"][0])

    def epoch() -> None:
        model.fit(inputs, rows["label"], batch_size=options.batch, epochs=1, verbose=0)

    def judged(others: Rows) -> Callable[[], np.ndarray]:
        return lambda: model.predict(inputs_of(others), batch_size=4096, verbose=0).ravel()

    return Competitor(turn, epoch, judged)


def fuxictr(model_name: str, rows: Rows, options: argparse.Namespace) -> Competitor:
    """A model of FuxiCTR's package by its own data loader and `train_epoch`, not evaluated."""
    import pandas as pd
    import torch
    from fuxictr.features import FeatureMap
    from model_zoo.LongCTR.DIEN.DIEN import DIEN
    from model_zoo.LongCTR.DIN.DIN import DIN
    from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

    folder = tempfile.mkdtemp()
    ids = np.arange(options.items)
    pd.DataFrame({"item_index": ids, "item_id": ids}).to_parquet(f"{folder}/item.parquet")
    feature_map = FeatureMap("rows", folder)
    feature_map.labels = ["label"]
    feature_map.default_emb_dim = options.dim
    for name in ("user_index", "seq_len", "item_index"):
        feature_map.features[name] = {"type": "meta", "emb_output_dim": 0}
    feature_map.features["item_id"] = {
        "type": "categorical", "source": "item", "vocab_size": int(options.items), "padding_idx": 0
    }  # fmt: skip
    if model_name == "din":
        make, own = (
            DIN,
            {
                "attention_hidden_units": list(options.unit),
                "attention_hidden_activations": options.unit_activation.capitalize(),
            },
        )
    else:
        make, own = DIEN, {"gru_type": "AUGRU"}
    model = make(
        feature_map,
        dnn_hidden_units=list(options.mlp),
        batch_norm=False,
        **own,
        embedding_dim=options.dim,
        optimizer="adam",
        loss="binary_crossentropy",
        verbose=0,
        model_root=folder,
        metrics=["AUC"],
    )
    # What BaseModel.fit sets before its first epoch; it would evaluate after each.
    model._max_gradient_norm = 10.0
    model._total_steps, model._eval_steps, model._stop_training = 0, sys.maxsize, False

    def load(name: str, rows: Rows, batch: int, shuffle: bool) -> LongCTRDataLoader:
        requests, first = np.unique(rows["request"], return_index=True)
        lengths = zip(rows["history"][first], rows["length"][first], strict=True)
        seen = pd.DataFrame({"full_item_seq": [row[:n] for row, n in lengths]})
        seen.to_parquet(f"{folder}/{name}_users.parquet")
        pd.DataFrame(
            {
                "user_index": np.searchsorted(requests, rows["request"]),
                "seq_len": rows["length"],
                "item_index": rows["item"],
                "label": rows["label"],
            }
        ).to_parquet(f"{folder}/{name}.parquet")
        return LongCTRDataLoader(
            feature_map,
            f"{folder}/{name}.parquet",
            f"{folder}/{name}_users.parquet",
            f"{folder}/item.parquet",
            batch_size=batch,
            shuffle=shuffle,
            max_len=rows["history"].shape[1],
        )

    loader = load("rows", rows, options.batch, shuffle=True)
    losses: list[float] = []
    plain_step = model.train_step

    def train_step(batch: tuple) -> torch.Tensor:
        loss = plain_step(batch)
        losses.append(float(loss))
        return loss

    model.train_step = train_step

    def forever() -> Iterator[tuple]:
        while True:
            yield from loader

    batches = forever()
    seen_rows = [0]

    def turn(seconds: float) -> tuple[int, float]:
        losses.clear()
        seen_rows[0] = 0

        def until_then() -> Iterator[tuple]:
            end = time.monotonic() + seconds
            while True:
                batch = next(batches)
                seen_rows[0] += len(batch[2])
                yield batch
                if time.monotonic() >= end:
                    return

        model.train_epoch(until_then())
        return seen_rows[0], float(np.mean(losses))

    def judged(others: Rows) -> Callable[[], np.ndarray]:
        in_order = load("judged", others, 4096, shuffle=False)
        return lambda: model.predict(in_order)

    return Competitor(turn, lambda: model.train_epoch(loader), judged)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", help="LIBRARY_MODEL")
    parser.add_argument("rows")
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--judge")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--patience", type=int, default=2)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--heads", type=int, required=True)
    parser.add_argument("--mlp", type=int, nargs="+", required=True)
    parser.add_argument("--unit", type=int, nargs="+", required=True)
    parser.add_argument("--unit_activation", required=True)
    options = parser.parse_args()
    rows = dict(np.load(options.rows))
    library, _, model_name = options.program.partition("_")
    make = {"deepctr": deepctr, "fuxictr": fuxictr}[library]
    if options.judge:
        validation = dict(np.load(options.judge))
        judge(lambda: make(model_name, rows, options), validation, options.epochs, options.patience)
    else:
        serve(lambda: make(model_name, rows, options).turn, options.seconds)


if __name__ == "__main__":
    main()
