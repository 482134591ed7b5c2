"""The sections of a configuration: frozen dataclasses, checked when made.

Each gap that the paper leaves open is one field, with the paper's letter in `config.paper`
(BUILD_NOTES.md, "Gaps of the paper").
"""

import dataclasses
import itertools
import math
from typing import Literal

from sitn_tf import bounds, schema
from sitn_tf.errors import InputError

SINGLE_DOMAIN = ("fm", "wide_deep", "deepfm", "din", "dien", "clsr")
"""Models whose papers know one domain, here the target."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What every model has."""

    name: str = "sitn"  # one of config.SECTIONS
    embedding_dim: int = 32  # D: of items, histories and clusters
    # of a request, in stage 2: hour, weekday, user, source_length, target_length, idle
    request_features: tuple[str, ...] = ()
    # w log(1 + training clicks) of the candidate is added to its logit, w fitted on validation
    popularity: bool = True
    user_buckets: int = 100_000  # rows that hashed users share: request feature user, clsr
    # in the MLP of Eq. 8 or the deep part, and on encoded histories; fm, mv_dnn, conet have neither
    dropout: float = 0.0
    # Whether it sees the source history; by default all but SINGLE_DOMAIN do
    use_source: bool | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of the layers, in training

    def __post_init__(self) -> None:
        if self.use_source is None:
            object.__setattr__(self, "use_source", self.name not in SINGLE_DOMAIN)
        bounds.at_least(self, 1, "embedding_dim", "user_buckets")
        bounds.within(self, 0.0, 0.99, "dropout")
        bounds.each_of(self, "request_features", tuple(schema.INPUTS_OF_REQUEST_FEATURE))
        if len(set(self.request_features)) < len(self.request_features):
            raise InputError(
                f"model.request_features={','.join(self.request_features)} names one twice",
                "name each once",
            )

    @property
    def request_inputs(self) -> tuple[schema.Feature, ...]:
        """What the request features are read from beside the items, each once."""
        inputs = map(schema.INPUTS_OF_REQUEST_FEATURE.__getitem__, self.request_features)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(inputs)))


@dataclasses.dataclass(frozen=True)
class ItemsConfig:
    """The item embeddings: what an item's vector is made of."""

    # of the item tables, where the data set has them
    side_features: tuple[str, ...] = schema.SIDE_FEATURES
    title_words: int = 12  # first words of a title that count
    # One vocabulary and one table of a side feature that both domains have
    shared_side_features: bool = True
    id_embedding: Literal["full", "hash", "quotient_remainder"] = "full"  # a row an id, or shared
    id_rows: int = 100_000  # of a domain: that hashed ids share, or of the table of remainders
    id_combination: Literal["product", "sum"] = "product"  # of quotient and remainder
    # Probability that a step of training sees an item without its id embedding, if more is known
    id_dropout: float = 0.5

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "title_words", "id_rows")
        bounds.within(self, 0.0, 0.99, "id_dropout")
        bounds.each_of(self, "side_features", schema.SIDE_FEATURES)

    def table_rows(self, size: int) -> tuple[int, ...]:
        """Rows of the table, or tables, of the ids.

        Args:
          size: of the vocabulary, with the two reserved ids.

        Returns:
          One number; for quotient_remainder those of remainders and of quotients.
        """
        if self.id_embedding == "full":
            return (size,)
        if self.id_embedding == "hash":
            return (self.id_rows + schema.FIRST_ID,)
        quotients = -(-(size - schema.FIRST_ID) // self.id_rows)
        return (self.id_rows + schema.FIRST_ID, quotients + schema.FIRST_ID)


@dataclasses.dataclass(frozen=True)
class MlpConfig:
    """The multi-layer perceptron that makes a logit of user and candidate (Eq. 8)."""

    widths: tuple[int, ...] = (128, 64)  # of the hidden layers
    products: bool = True  # u_f * v beside u_f and v in Eq. 8, which has neither product

    def __post_init__(self) -> None:
        bounds.widths(self, "widths")


@dataclasses.dataclass(frozen=True)
class DeepConfig:
    """The deep part of Wide & Deep and DeepFM: an MLP over the fields' vectors side by side."""

    widths: tuple[int, ...] = (128, 64)  # of the hidden layers

    def __post_init__(self) -> None:
        bounds.widths(self, "widths")


@dataclasses.dataclass(frozen=True)
class WideConfig:
    """The crosses of Wide & Deep's wide part: the candidate with each recent item."""

    recent_items: int = 10  # of each history that are crossed, its last; 0: no crosses
    buckets: int = 100_000  # weights of a domain that hashed crosses share
    # of the wide part; shared: stage2's, as all else
    optimizer: Literal["shared", "ftrl"] = "shared"
    ftrl_rate: float = 0.03  # of FTRL (sitn_tf/optimizers/ftrl.py), whatever stage 2's
    ftrl_l1: float = 1e-3  # what a weight's gradients must add up to before it leaves 0
    ftrl_l2: float = 0.0

    def __post_init__(self) -> None:
        bounds.at_least(self, 0, "recent_items")
        bounds.at_least(self, 1, "buckets")
        bounds.above(self, 0.0, "ftrl_rate")
        bounds.at_least(self, 0.0, "ftrl_l1", "ftrl_l2")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The sequence encoder f of Eq. 1 and 2."""

    heads: int = 4  # h of Eq. 1, in the encoders and in target attention
    blocks: int = 1  # attention blocks an encoder
    shared: bool = False  # one encoder's weights for both domains
    residual: bool = True  # a residual around attention; Eq. 1 has none
    layer_norm: bool = False  # after attention; Eq. 1 has none
    positions: bool = True  # learned recency positions; Eq. 1 has none
    ages: bool = False  # how long before the request each click was, beside its position

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "heads", "blocks")


@dataclasses.dataclass(frozen=True)
class SitnConfig:
    """What only SITN's scorer has."""

    target_attention: Literal["multi_head", "din"] = "multi_head"
    # Where the cosines of candidate and instances, which stage 1 trains, enter the score
    match: Literal["none", "inputs", "logit"] = "none"
    source_gate: bool = False  # u^s of Eq. 8 times a gate that starts nearly closed
    sequence_means: bool = True  # each encoded sequence's mean beside its u_f in Eq. 8, as SEMI's


@dataclasses.dataclass(frozen=True)
class DinConfig:
    """What only DIN's scorer has."""

    unit_widths: tuple[int, ...] = (36,)  # of the activation unit's hidden layers
    unit_activation: Literal["dice", "sigmoid"] = "dice"  # sigmoid: as in the authors' code
    mlp_activation: Literal["dice", "relu"] = "dice"
    l2: float = 0.0  # lambda of mini-batch aware regularisation; 0.01 for the paper's largest data

    def __post_init__(self) -> None:
        bounds.widths(self, "unit_widths")
        bounds.at_least(self, 0.0, "l2")


@dataclasses.dataclass(frozen=True)
class DienConfig:
    """What only DIEN's scorer has."""

    auxiliary_weight: float = 1.0  # alpha of the loss on the next click; 0: without it
    mlp_activation: Literal["dice", "relu"] = "dice"

    def __post_init__(self) -> None:
        bounds.at_least(self, 0.0, "auxiliary_weight")


@dataclasses.dataclass(frozen=True)
class ClsrConfig:
    """What only CLSR's scorer has."""

    loss: Literal["click", "softmax"] = "click"  # Eq. 9, or a softmax over a request's candidates
    unit_widths: tuple[int, ...] = (80, 40)  # hidden layers of both attentions and of alpha
    contrast_weight: float = 0.01  # beta of the contrast of interests and proxies; 0: without it
    contrast: Literal["triplet", "bpr"] = "bpr"
    margin: float = 1.0  # m of a triplet, in each dimension
    recent_items: int = 3  # k: a history's last, whose mean is the proxy of short-term interests
    longer_than: int = 5  # items that a history must exceed for the contrast

    def __post_init__(self) -> None:
        bounds.widths(self, "unit_widths", at_least_one=True)
        bounds.at_least(self, 0.0, "contrast_weight", "margin")
        bounds.at_least(self, 1, "recent_items")
        bounds.at_least(self, 0, "longer_than")


@dataclasses.dataclass(frozen=True)
class JointConfig:
    """Training on both domains' clicks: target requests, and source requests beside them."""

    source_weight: float = 1.0  # of the source requests' loss
    batch_size: int = 0  # source requests a step; 0: so many that an epoch sees each about once

    def __post_init__(self) -> None:
        bounds.at_least(self, 0.0, "source_weight")
        bounds.at_least(self, 0, "batch_size")


@dataclasses.dataclass(frozen=True)
class ViewsConfig:
    """The views of MV-DNN, of the user and of each domain's items."""

    widths: tuple[int, ...] = (128, 64)  # of a view's layers; the last is the shared space's

    def __post_init__(self) -> None:
        bounds.widths(self, "widths", at_least_one=True)


@dataclasses.dataclass(frozen=True)
class ConetConfig:
    """The two networks of CoNet and what crosses between them."""

    widths: tuple[int, ...] = (128, 64)  # of the hidden layers; the paper's are 32, 16, 8
    crossed: int = 2  # how many of them also see the other network, from the first
    l1: float = 0.0  # lambda of the penalty that makes crossings sparse (SCoNet); 0: without it

    def __post_init__(self) -> None:
        bounds.widths(self, "widths")
        bounds.within(self, 1, len(self.widths), "crossed")
        bounds.at_least(self, 0.0, "l1")


@dataclasses.dataclass(frozen=True)
class MinetConfig:
    """What only MiNet's scorer has."""

    attention_width: int = 64  # of the hidden layer of every item- and interest-level attention
    source_interest: bool = True  # source candidates see the source history; the paper's don't

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "attention_width")


@dataclasses.dataclass(frozen=True)
class ContrastConfig:
    """The contrastive losses of stage 1 (Eq. 3-7)."""

    temperature: float = 0.1  # tau of Eq. 3, 4 and 7
    similarity: Literal["cosine", "dot"] = "cosine"  # the paper's sim is the dot product
    reduction: Literal["mean", "sum"] = "mean"  # over rows and granularities; printed as sums
    i2i_weight: float = 1.0
    i2c_weight: float = 1.0
    granularities: tuple[int, ...] = (32, 64, 128, 256)  # K of each interest space
    top_k: int = 1  # k of Eq. 6: views of a user; 2 in the paper's Fig. 2
    # pi of Eq. 5; balanced: as much of the batch to each cluster (Sinkhorn, in the manner of SwAV)
    assignment: Literal["softmax", "balanced"] = "softmax"
    assignment_temperature: float = 0.1  # of pi in Eq. 5; printed as 1
    # of u in Eq. 5; printed as none. A cosine knows l2 alone, for u is compared as it is
    cluster_norm: Literal["l2", "mean", "none"] = "l2"
    # of C; shared: orthogonal, and both domains start from the same
    cluster_init: Literal["orthogonal", "shared", "normal"] = "orthogonal"
    view: Literal["mean", "mlp"] = "mean"  # q of Eq. 6; printed as an MLP
    negatives: Literal["clusters", "views"] = "clusters"  # of Eq. 7; views: other users' q
    exclude_own: bool = False  # leave a user's own top-k clusters out of the negatives
    stop_cluster_gradient: bool = False  # pi without a gradient

    def __post_init__(self) -> None:
        bounds.above(self, 0.0, "temperature", "assignment_temperature")
        bounds.at_least(self, 0.0, "i2i_weight", "i2c_weight")
        if not self.i2i_weight and not self.i2c_weight:
            raise InputError("contrast.i2i_weight and contrast.i2c_weight are both 0")
        if self.i2c_weight and not self.granularities:
            raise InputError("contrast.granularities is empty: name at least one K")
        if self.similarity == "cosine" and self.cluster_norm != "l2":
            raise InputError(
                f"contrast.cluster_norm={self.cluster_norm} leaves new clusters of any length, of "
                "which contrast.similarity=cosine would be none",
                "give contrast.cluster_norm=l2, or contrast.similarity=dot",
            )
        for clusters in self.granularities:
            if not 1 <= self.top_k <= clusters:
                raise InputError(
                    f"contrast.top_k={self.top_k} is not between 1 and K={clusters}, "
                    "one of contrast.granularities"
                )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How weights move, in either stage."""

    batch_size: int = 256  # records, over all replicas
    epochs: int = 20  # at most
    patience: int = 2  # epochs without a better objective before it stops
    min_steps: int = 0  # before which it does not stop: epochs of few steps tell little
    learning_rate: float = 1e-3  # the highest, where it changes
    row_decay: float = 0.0  # decay of the embedding rows that a step touches
    # both row-sparse (sitn_tf/optimizers/row_sparse.py)
    optimizer: Literal["adam", "adagrad"] = "adam"
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up
    warmup_steps: int = 0  # over which the learning rate rises linearly
    decay_steps: int = 0  # until the decay ends, warm-up included; 0: all epochs
    final_rate: float = 0.0  # where the decay ends, as a share of learning_rate
    clip_norm: float = 0.0  # bound of the gradients' global norm; 0: none

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "batch_size", "epochs", "patience")
        bounds.above(self, 0.0, "learning_rate")
        if not math.isfinite(self.learning_rate):
            bounds.refuse(self, "learning_rate", "finite")
        bounds.at_least(self, 0, "min_steps", "warmup_steps", "decay_steps")
        bounds.at_least(self, 0.0, "row_decay", "clip_norm")
        bounds.within(self, 0.0, 1.0, "final_rate")


@dataclasses.dataclass(frozen=True)
class Stage1Config(TrainingConfig):
    """Training of stage 1, judged by held-out users."""

    batch_size: int = 512  # users, over all replicas: the contrast's negatives
    epochs: int = 30
    patience: int = 3  # epochs without better held-out retrieval before it stops
    min_steps: int = 300
    learning_rate: float = 3e-3
    train_ids: bool = True  # also the id embeddings of items of which more than the id is known
    item_mask: float = 0.2  # probability that a history's item is hidden, in training
    item_crop: float = 0.0  # share of a history cut off at its ends, in training
    # x: items less than x / (1 - x) of the history apart may change places, in training
    item_shuffle: float = 0.0
    i2c_after: int = 0  # steps of i2i alone before i2c joins
    micro_batches: int = 1  # parts of a replica's batch encoded one after the other
    collapse: Literal["warn", "stop", "ignore"] = "warn"  # what collapsed clusters lead to
    retrieval_users: int = 1024  # held-out users ranked against each other, at most

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds.within(self, 0.0, 0.95, "item_mask", "item_crop")
        bounds.within(self, 0.0, 1.0, "item_shuffle")
        bounds.at_least(self, 0, "i2c_after")
        bounds.at_least(self, 1, "micro_batches")
        bounds.at_least(self, 2, "retrieval_users")


KEPT_CONTRAST = 0.01
"""Weight of stage 1's contrast in a stage 2 that starts from it."""


@dataclasses.dataclass(frozen=True)
class Stage2Config(TrainingConfig):
    """Training of stage 2, stopped by validation AUC; a batch's records are requests."""

    batch_size: int = 64  # of few labels small batches make more; of many, 512 are faster
    min_steps: int = 1000
    encoders: Literal["fine_tune", "freeze"] = "fine_tune"  # what stage 1 trained
    encoder_rate: float = 1.0  # learning rate of what stage 1 trained, as a share
    # Odds of stage 1's held-out retrieval, as a multiple of chance's, below which there is
    # nothing to transfer and stage 2 starts from scratch; 0: never
    min_lift: float = 1.2
    # Steps, and the rest of an epoch, of each start that races on validation AUC where a stage 1 is
    # offered: from it, from scratch, from scratch without the source history; 0: no race
    race_steps: int = 4000
    # Of L_i2i, kept beside Eq. 9; by default KEPT_CONTRAST where it starts from a stage 1, else 0
    contrast_weight: float | None = None
    contrast_decay_steps: int = 0  # over which that weight falls linearly to 0; 0: it stays
    # Of the training requests, those that are learned from: a point of a learning curve
    label_share: float = 1.0
    log_q: bool = False  # correct logits for the popularity of sampled candidates

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds.above(self, 0.0, "encoder_rate")
        bounds.at_least(self, 0.0, "min_lift")
        bounds.at_least(self, 0, "race_steps", "contrast_decay_steps")
        bounds.above(self, 0.0, "label_share")
        if self.label_share > 1:
            bounds.refuse(self, "label_share", "at most 1")
        if self.contrast_weight is not None:
            bounds.at_least(self, 0.0, "contrast_weight")
