"""The competitors of tests/benchmarks/training.py, each run by the Python of its own environment.

    python training_baselines.py deepctr_bst ROWS.npz --batch=2560 --seconds=3 ...

Imports nothing of this project, whose packages those environments don't have. ROWS.npz holds
one row a candidate: `history` `[R, L]` int64, oldest first, 0 padded at the end, `length`, `item`
and `label`, `[R]`.

A worker says on standard output, one JSON line each, that it is ready, and after every line on
standard input how many candidates it trained on, in how many seconds, with what mean loss.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np

Turn = Callable[[float], tuple[int, float]]
"""Trains for about so many seconds → candidates, and the mean loss."""


def serve(make: Callable[[], Turn], seconds: float) -> None:
    """Answers each line of standard input by a turn, after two short ones in which code warms up.

    Libraries write what they like to standard output, so it becomes standard error and the
    answers go to a copy of it.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: float) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    turn = make()
    _, loss = turn(0.0)
    turn(0.0)
    answer(first_loss=loss)
    for _ in sys.stdin:
        began = time.monotonic()
        candidates, loss = turn(seconds)
        answer(candidates=candidates, seconds=time.monotonic() - began, loss=loss)


def deepctr(model_name: str, rows: dict[str, np.ndarray], options: argparse.Namespace) -> Turn:
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
    inputs = {"item": rows["item"], "hist_item": history, "seq_length": rows["length"]}
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

    return turn


def fuxictr(model_name: str, rows: dict[str, np.ndarray], options: argparse.Namespace) -> Turn:
    """A model of FuxiCTR's package by its own data loader and `train_epoch`, not evaluated."""
    import pandas as pd
    import torch
    from fuxictr.features import FeatureMap
    from model_zoo.LongCTR.DIEN.DIEN import DIEN
    from model_zoo.LongCTR.DIN.DIN import DIN
    from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

    folder = tempfile.mkdtemp()
    requests, first = np.unique(rows["request"], return_index=True)
    seen = [row[:n] for row, n in zip(rows["history"][first], rows["length"][first], strict=True)]
    pd.DataFrame({"full_item_seq": seen}).to_parquet(f"{folder}/user.parquet")
    ids = np.arange(options.items)
    pd.DataFrame({"item_index": ids, "item_id": ids}).to_parquet(f"{folder}/item.parquet")
    pd.DataFrame(
        {
            "user_index": np.searchsorted(requests, rows["request"]),
            "seq_len": rows["length"],
            "item_index": rows["item"],
            "label": rows["label"],
        }
    ).to_parquet(f"{folder}/rows.parquet")

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
    loader = LongCTRDataLoader(
        feature_map,
        f"{folder}/rows.parquet",
        f"{folder}/user.parquet",
        f"{folder}/item.parquet",
        batch_size=options.batch,
        shuffle=True,
        max_len=rows["history"].shape[1],
    )
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

    return turn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", help="LIBRARY_MODEL")
    parser.add_argument("rows")
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--heads", type=int, required=True)
    parser.add_argument("--mlp", type=int, nargs="+", required=True)
    parser.add_argument("--unit", type=int, nargs="+", required=True)
    parser.add_argument("--unit_activation", required=True)
    options = parser.parse_args()
    rows = dict(np.load(options.rows))
    library, _, model_name = options.program.partition("_")
    make = {
        "deepctr": lambda: deepctr(model_name, rows, options),
        "fuxictr": lambda: fuxictr(model_name, rows, options),
    }[library]
    serve(make, options.seconds)


if __name__ == "__main__":
    main()
