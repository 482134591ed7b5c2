"""Titles → vectors, by a sentence-transformers model in a folder: RunInference in the job."""

import dataclasses
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference

from pipelines.logs import files
from pipelines.logs.files import join
from sitn_tf.errors import InputError

_TOKENIZER = "tokenizer.json"
_ONNX = ("onnx/model.onnx", "model.onnx")
_POOLING = "1_Pooling/config.json"
_LENGTH = "sentence_bert_config.json"
_BLOCK_BYTES = 1 << 20
_INPUTS = ("attention_mask", "input_ids", "token_type_ids")
_ACCEPTED = (
    f"give a folder as sentence-transformers writes it, with {_TOKENIZER}, or an installed package "
    "that has one"
)


@dataclasses.dataclass(frozen=True)
class TitleModel:
    """A model that is there and can be run.

    Attributes:
      name: as it was given.
      folder: where its files are.
      onnx: the path of its ONNX file, "" where it has none.
      sha256: of the files that are used; a data set is extended with the very same model only.
    """

    name: str
    folder: str
    onnx: str
    sha256: str


def find(name: str) -> TitleModel:
    """The model of a folder or, by its name, of an installed package.

    Raises:
      InputError: there is none, its ONNX file is not for the mean of its tokens, or what runs it
        is not installed.
    """
    folder = _folder(name)
    there = [p for p in (_TOKENIZER, _LENGTH, _POOLING, *_ONNX) if files.exists(join(folder, p))]
    onnx = [place for place in _ONNX if place in there][:1]
    if onnx and _POOLING in there:
        pooling = json.loads(files.read_text(join(folder, _POOLING)))
        if not pooling.get("pooling_mode_mean_tokens", True):
            raise InputError(
                f"title_model={name} does not take the mean of its tokens ({_POOLING})",
                "give a model that does, such as all-MiniLM-L6-v2",
            )
    needed = ("onnxruntime", "tokenizers") if onnx else ("sentence_transformers",)
    if not all(map(importlib.util.find_spec, needed)):
        extra = "titles" if onnx else "titles_torch"
        without = "" if onnx else f" (or give a model with an ONNX file, {' or '.join(_ONNX)})"
        raise InputError(
            f"title_model={name} needs {' and '.join(needed)}",
            f"pip install 'sitn_tf[{extra}]'{without}",
        )
    if onnx:  # a folder may hold the same weights in five formats
        used = [place for place in there if place not in _ONNX] + onnx
        return TitleModel(name, folder, join(folder, onnx[0]), _hash(folder, used))
    return TitleModel(name, folder, "", _hash(folder, _visible(folder)))


def _folder(name: str) -> str:
    candidates = [name.rstrip("/")]
    if name.replace("-", "_").isidentifier():
        spec = importlib.util.find_spec(name.replace("-", "_"))
        for place in (spec and spec.submodule_search_locations) or ():
            found = files.match(join(place, "**", _TOKENIZER))
            candidates += [path.rsplit("/", 1)[0] for path, _ in found]
    for folder in candidates:
        if files.exists(join(folder, _TOKENIZER)):
            return folder
    raise InputError(f"title_model={name} has no {_TOKENIZER}", _ACCEPTED)


def _visible(folder: str) -> list[str]:
    """All files of a folder, of which Git's own and the like are none."""
    places = (path.removeprefix(f"{folder}/") for path, _ in files.match(join(folder, "**")))
    return [place for place in places if not re.search(r"(^|/)\.", place)]


def _hash(folder: str, places: Iterable[str]) -> str:
    """Of files of a folder, by name and content."""
    total = hashlib.sha256()
    for place in sorted(places):
        content = hashlib.sha256()
        with files.reading(join(folder, place)) as stream:
            while block := stream.read(_BLOCK_BYTES):
                content.update(block)
        total.update(f"{place} {content.hexdigest()}\n".encode())
    return total.hexdigest()


class OnnxEncoder:
    """A tokenizer and an ONNX file: a title → the mean of its tokens' vectors, float32 [W].

    Each title is run alone. Together they would be faster (by half on one core), but where a
    quantised model takes its scales from the batch, a vector would depend on what came with it.
    """

    def __init__(self, folder: str, onnx: str) -> None:
        import onnxruntime
        import tokenizers

        text = files.read_text(join(folder, _TOKENIZER))
        self._tokenizer = tokenizers.Tokenizer.from_str(text)
        self._tokenizer.no_padding()
        if files.exists(length := join(folder, _LENGTH)):
            longest = json.loads(files.read_text(length))["max_seq_length"]
            self._tokenizer.enable_truncation(longest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # workers run in parallel
        with files.reading(onnx) as stream:
            self._session = onnxruntime.InferenceSession(
                stream.read(), options, providers=["CPUExecutionProvider"]
            )
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._output = next((o.name for o in self._session.get_outputs() if len(o.shape) == 3), "")
        if not set(self._inputs) <= set(_INPUTS) or not self._output:
            raise InputError(
                f"title_model: {onnx} takes {', '.join(self._inputs)}: give one that takes "
                f"{', '.join(_INPUTS)} and gives a vector for each token"
            )

    def __call__(self, title: str) -> np.ndarray:
        tokens = self._tokenizer.encode(title)
        of_tokens = (tokens.attention_mask, tokens.ids, tokens.type_ids)
        columns = dict(zip(_INPUTS, of_tokens, strict=True))
        given = {name: np.array([columns[name]], np.int64) for name in self._inputs}
        [[vectors]] = self._session.run([self._output], given)
        mask = np.array(tokens.attention_mask, np.float32)
        return (mask @ vectors) / max(mask.sum(), 1)


class OnnxTitles(ModelHandler[str, np.ndarray, OnnxEncoder]):
    """`OnnxEncoder` for RunInference."""

    def __init__(self, model: TitleModel) -> None:
        super().__init__()
        self._model = model

    def load_model(self) -> OnnxEncoder:
        return OnnxEncoder(self._model.folder, self._model.onnx)

    def run_inference(
        self,
        batch: Sequence[str],
        model: OnnxEncoder,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[np.ndarray]:
        return map(model, batch)


def embed(titles: beam.PCollection[str], model: TitleModel) -> beam.PCollection[Any]:
    """Distinct titles → (title, vector [W])."""
    if model.onnx:
        handler: ModelHandler[str, Any, Any] = OnnxTitles(model)
    else:
        from apache_beam.ml.transforms.embeddings import huggingface

        embeddings = huggingface.SentenceTransformerEmbeddings(model.folder, columns=["title"])
        handler = embeddings.get_model_handler()
    return (
        titles
        | "Twice" >> beam.Map(lambda title: (title, title))
        | "RunModel" >> RunInference(KeyedModelHandler(handler))
    )
