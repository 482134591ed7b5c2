"""A sentence-transformers folder with a vector a word, as an ONNX file."""

import json
import pathlib

import numpy as np

WORDS = ["[UNK]", "red", "blue", "dog", "cat", "bowl"]
WIDTH = 5
LONGEST = 4
"""Tokens of a title that count."""


def word_vectors(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(WORDS), WIDTH)).astype(np.float32)


def expected(title: str, seed: int = 0) -> np.ndarray:
    """What `write_model`'s gives a title: the mean of its words' vectors."""
    words = [WORDS.index(w) if w in WORDS else 0 for w in title.split()][:LONGEST]
    return np.mean(word_vectors(seed)[words], axis=0)


def write_model(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes the model; needs tokenizers and onnx."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    words = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_padding(length=9)  # as all-MiniLM-L6-v2 has it: not to be used
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "words",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", WIDTH]),
            helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, WIDTH]),
        ],
        [numpy_helper.from_array(word_vectors(seed), "table")],
    )
    graph.node.append(
        helper.make_node("ReduceMax", ["last_hidden_state"], ["pooled"], axes=[1], keepdims=0)
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "model.onnx")
    return folder
