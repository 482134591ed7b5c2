"""What every stage-2 model is: histories encoded once a request, then any candidates.

Training, evaluation and export put a model together in the same way: item vectors
(`Scorer.item_vectors`; an export looks them up in a table that it folded with the same method),
then `Scorer.encode`, then `Scorer.score`. What a model overrides of the three holds everywhere.
"""

import abc
import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers import click_ages
from sitn_tf.layers.embedding import embed_items, look_up
from sitn_tf.layers.mlp import beside, join
from sitn_tf.layers.popularity import Popularity
from sitn_tf.layers.request_features import RequestEmbedding


class History(NamedTuple):
    """A domain's history.

    Attributes:
      vectors: `[B, T, W]` of its items, oldest first.
      mask: `[B, T]` bool, True for real ones.
      ages: `[B, T]` int64, seconds from each click to the request, of a model that reads them
        (layers/click_ages.py).
    """

    vectors: tf.Tensor
    mask: tf.Tensor
    ages: tf.Tensor | None = None


Histories = Mapping[str, History]
"""By domain; without the source in a control that doesn't see it."""

Encoded = dict[str, tf.Tensor]
"""What candidates need of a user: tensors of B rows, by name."""

REQUEST_FEATURES = "request_features"
"""Their vectors' name in what is encoded."""


SHOWN = "shown"
"""`[B, C]` bool, which candidates are real: beside what is encoded, in training alone."""


def with_lengths(request: Batch, histories: Histories) -> Batch:
    """What is known of requests, and how many items each history has.

    Returns:
      `request`, and `source_length` and `target_length`, `[B]` int64; -1, which is not known, of
      a history that the model does not see.
    """
    lengths = {d: tf.reduce_sum(tf.cast(h.mask, tf.int64), axis=1) for d, h in histories.items()}
    unseen = -tf.ones_like(lengths[schema.TARGET])
    named = {name: lengths.get(domain, unseen) for domain, name in schema.LENGTH_OF_DOMAIN.items()}
    return {**request, **named}


class Scorer(tf_keras.Model, abc.ABC):
    """Base of the click scorers. A subclass has `encode_history`, or its own `encode`, and `score`.

    Args:
      config: of the run; a model reads the sections that config.SECTIONS gives it.
      tables: item tables by domain.
      max_history: longest history in a record.

    Attributes:
      items: item embeddings by domain.
      takes_over: names of the attributes that a pre-trainer may hand over
        (models/registry.py), each a layer by domain.
      learns_source: whether it is trained on requests of the source domain too; such a model has
        `score_source`, and the section `joint` of the configuration.
      ranks_candidates: whether its click loss is a softmax over a request's candidates, not Eq. 9
        of each. Such logits say which candidate of a request is clicked, not how likely any is:
        they are free by a number for each request, and their sigmoid is no click rate before an
        export calibrates it.
      popularity: what target items' clicks add to logits outside training; None without.
    """

    takes_over: ClassVar[tuple[str, ...]] = ("items",)
    learns_source: ClassVar[bool] = False
    ranks_candidates: bool = False

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(name=config.model.name)
        self.config = config
        domains = schema.DOMAINS if config.model.use_source else (schema.TARGET,)
        self.items = embed_items(tables, config.items, config.model.embedding_dim, domains)
        self.request_embedding = None
        if config.model.request_features:
            self.request_embedding = RequestEmbedding(config.model)
            self.request_embedding.build([None])
        self.popularity = None
        if config.model.popularity:
            self.popularity = Popularity(tables[schema.TARGET].count)

    @property
    def request_inputs(self) -> tuple[schema.Feature, ...]:
        """What a score comes from besides items: of a request, each once."""
        read = self.config.model.request_inputs
        if self.config.encoder.ages and schema.REQUEST_TIME not in read:
            return (*read, schema.REQUEST_TIME)
        return read

    @property
    def click_inputs(self) -> tuple[schema.Feature, ...]:
        """What a score comes from besides items: of the clicks of the histories that it sees."""
        domains = self.items if self.config.encoder.ages else ()
        return tuple(schema.TIMES_OF_DOMAIN[domain] for domain in domains)

    @property
    def reads(self) -> tuple[schema.Feature, ...]:
        """The features of a stage-2 record that a score comes from."""
        return (
            schema.SOURCE_HISTORY,
            schema.TARGET_HISTORY,
            schema.CANDIDATES,
            *self.click_inputs,
            *self.request_inputs,
        )

    def variables_of(self, parts: Iterable[str]) -> list[tf.Variable]:
        """The trained variables of some attributes that the model takes over, each once."""
        layers = (layer for part in parts for layer in getattr(self, part).values())
        variables = (variable for layer in layers for variable in layer.trainable_variables)
        return list({id(variable): variable for variable in variables}.values())

    @property
    def ftrl_variables(self) -> list[tf.Variable]:
        """The trained variables that FTRL updates in the place of stage 2's optimiser."""
        return []

    def item_vectors(self, domain: str, ids: tf.Tensor) -> tf.Tensor:
        """Ids `[U]` of a domain → vectors `[U, W]`, of histories and candidates alike.

        A model may widen them: W is D here. Those of id 0 (padding) must be zero.
        """
        return self.items[domain].vectors(ids)

    def history_of(
        self, domain: str, ids: tf.Tensor, vectors: tf.Tensor, inputs: Mapping[str, tf.Tensor]
    ) -> History:
        """A domain's history of ids `[B, T]` and their vectors `[B, T, W]`.

        Args:
          inputs: `click_inputs` and `request_inputs` by name; others are not read.
        """
        ages = None
        if self.click_inputs:
            times = inputs[schema.TIMES_OF_DOMAIN[domain].name]
            ages = click_ages.before(times, inputs[schema.REQUEST_TIME.name])
        return History(vectors, ids != schema.PAD_ID, ages)

    def encode(self, histories: Histories, request: Batch, training: bool = False) -> Encoded:
        """Histories and request → what `score` needs of them, tensors of B rows by name.

        In training it may hold more, for `auxiliary_losses` alone.

        Args:
          request: `request_inputs` by name, `[B]` each; others are not read.
        """
        encoded = self.encode_request(histories, request)
        for domain, history in histories.items():
            parts = self.encode_history(domain, history, training)
            encoded |= {f"{domain}_{what}": tensor for what, tensor in parts.items()}
        return encoded

    def encode_request(self, histories: Histories, request: Batch) -> Encoded:
        """The vectors of the request features, `[B, F, D]`, if the model has any."""
        if self.request_embedding is None:
            return {}
        return {REQUEST_FEATURES: self.request_embedding(with_lengths(request, histories))}

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """One domain's history → tensors of B rows, which `encode` names `<domain>_<what>`."""
        raise NotImplementedError(f"{type(self).__name__} has neither encode nor encode_history")

    @abc.abstractmethod
    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Encoded histories and item vectors `[B, C, W]` → logits `[B, C]`.

        Those of padding carry no meaning. In training `encoded` has SHOWN, for moments over a
        batch that padding must not change, and what is put into it reaches `auxiliary_losses`.
        """

    def score_source(
        self, encoded: Encoded, candidates: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """As `score`, of source items: in training alone, of a model that `learns_source`."""
        raise NotImplementedError(f"{type(self).__name__} does not score source items")

    def auxiliary_losses(
        self, histories: Histories, encoded: Encoded, inputs: Batch
    ) -> dict[str, tf.Tensor]:
        """Losses beside the click loss, by name: scalars that are added to it and shown.

        Each is already weighed, and this replica's share of a mean over the global batch: the
        sum over the replica's own rows over `distributed.replicas.global_sum` of their number.

        Args:
          histories: of this replica's rows.
          encoded: by `encode` and `score` in training.
          inputs: as of `call`, with all of schema.STAGE2_FEATURES.
        """
        return {}

    def call(
        self,
        inputs: Batch,
        training: bool = False,
        with_losses: bool = False,
        domain: str = schema.TARGET,
    ) -> Any:
        """What the model `reads` of schema.STAGE2_FEATURES → logits `[B, C]` float32.

        Items that are both in a history and candidates are embedded once. In training, popularity
        adds nothing: its counts hold the clicks that are learned.

        Args:
          domain: of the candidates; with the source, inputs are of
            schema.SOURCE_REQUEST_FEATURES.
          with_losses: also return `auxiliary_losses`, from the same pass.
        """
        histories, shown = {}, inputs[schema.CANDIDATES_OF_DOMAIN[domain].name]
        for of_items in self.items:
            history = inputs[schema.HISTORY_OF_DOMAIN[of_items].name]
            vectors_of = functools.partial(self.item_vectors, of_items)
            if of_items == domain:
                vectors, candidates = look_up(vectors_of, history, shown)
            else:
                (vectors,) = look_up(vectors_of, history)
            histories[of_items] = self.history_of(of_items, history, vectors, inputs)
        encoded = self.encode(histories, inputs, training=training)
        if training:
            encoded = {**encoded, SHOWN: shown != schema.PAD_ID}
        score = self.score if domain == schema.TARGET else self.score_source
        logits = tf.cast(score(encoded, candidates, training=training), tf.float32)
        if self.popularity is not None and not training and domain == schema.TARGET:
            logits = self.popularity(logits, shown)
        if with_losses:
            return logits, self.auxiliary_losses(histories, encoded, inputs)
        return logits

    def joined(self, users: list[tf.Tensor], encoded: Encoded, candidates: tf.Tensor) -> tf.Tensor:
        """Concat of Eq. 8, with the request features as further parts of the user.

        Args:
          users: what the candidates see of the histories, `[B, C, D]` each.
          encoded: has the request's vectors, if the model has any.
          candidates: item vectors `[B, C, D]`.

        Returns:
          `[B, C, I]`.
        """
        request = beside(self.request_parts(encoded), candidates)
        return join([*users, *request], candidates, self.config.mlp.products)

    def request_parts(self, encoded: Encoded) -> list[tf.Tensor]:
        """The vectors of the request features in what `encode` gave, `[B, 1, D]` each."""
        count = len(self.config.model.request_features)
        return tf.split(encoded[REQUEST_FEATURES], count, axis=1) if count else []
