"""The data set directory: names, record layout and manifest. No TensorFlow here.

    <data set>/
      manifest.json                    written last: its presence means whole
      checksums.json                   sha256 of every file that a reader relies on
      statistics.json                  per feature and split, for TFDV (statistics.pb too)
      statistics.html                  the same for people, with pictures
      stage1/  stage2/                 each opens with tfds.builder_from_directory
        dataset_info.json  features.json
        sitn_stage2-train.tfrecord-00000-of-00004 ...
      source_requests/                 the same, where they were asked for: train and validation
      vocabularies/source.item.txt     one token a line; line i (from 0) has id i + 2
      items/source.parquet             row r is the item of id r (0 pads, 1 is unknown)
      items/vectors.npz                where items have vectors: what made them (see below)
      rejects/part-*.jsonl             the input lines that were not used, with reasons
      events/                          with keep_events: what the next day's job extends

A stage-1 record is one user, a stage-2 record is one request, and so is a source request.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, Literal

from sitn_tf.errors import InputError

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
CHECKSUMS_FILE = "checksums.json"

PAD_ID = 0
OOV_ID = 1
FIRST_ID = 2

NO_HISTORY_TIME = -1
"""`history_time` of a record whose histories are both empty."""

SOURCE = "source"
TARGET = "target"
DOMAINS = (SOURCE, TARGET)

STAGE1 = "stage1"
STAGE2 = "stage2"
SOURCE_REQUESTS = "source_requests"
"""Requests of the source domain, for models that learn from both domains' clicks."""

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
STAGE1_SPLITS = (TRAIN, VALIDATION)
STAGE2_SPLITS = (TRAIN, VALIDATION, TEST)
SOURCE_REQUESTS_SPLITS = (TRAIN, VALIDATION)
SPLITS = {
    STAGE1: STAGE1_SPLITS,
    STAGE2: STAGE2_SPLITS,
    SOURCE_REQUESTS: SOURCE_REQUESTS_SPLITS,
}


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of a `tf.train.Example`: `ragged` has any number of values, else one."""

    name: str
    dtype: Literal["int64", "float32", "bytes"]
    ragged: bool
    meaning: str


USER_ID = Feature("user_id", "bytes", False, "the user's raw id")
SOURCE_HISTORY = Feature(
    "source_history", "int64", True, "source item ids clicked, oldest first, most recent kept"
)
TARGET_HISTORY = Feature(
    "target_history", "int64", True, "target item ids clicked, oldest first, most recent kept"
)
SOURCE_TIMES = Feature(
    "source_times", "int64", True, "times of the clicks of source_history, Unix seconds"
)
TARGET_TIMES = Feature(
    "target_times", "int64", True, "times of the clicks of target_history, Unix seconds"
)
HISTORY_TIME = Feature(
    "history_time", "int64", False, "newest time in either history, -1 if both are empty"
)
CUTOFF_TIME = Feature("cutoff_time", "int64", False, "every event in the record is before it")
REQUEST_TIME = Feature("request_time", "int64", False, "time of the request, Unix seconds")
CANDIDATES = Feature("candidates", "int64", True, "target item ids shown or sampled, C of them")
SOURCE_CANDIDATES = Feature(
    "source_candidates", "int64", True, "source item ids shown or sampled, C of them"
)
LABELS = Feature("labels", "int64", True, "1 where the candidate was clicked, else 0; C of them")
LOGGED_SCORES = Feature(
    "logged_scores",
    "float32",
    True,
    "score the log gives each candidate (never a model input): C of them, or none",
)

STAGE1_FEATURES = (USER_ID, CUTOFF_TIME, HISTORY_TIME, SOURCE_HISTORY, TARGET_HISTORY)
STAGE2_FEATURES = (
    USER_ID,
    REQUEST_TIME,
    HISTORY_TIME,
    SOURCE_HISTORY,
    TARGET_HISTORY,
    CANDIDATES,
    LABELS,
    LOGGED_SCORES,
)
SOURCE_REQUEST_FEATURES = tuple(
    SOURCE_CANDIDATES if feature == CANDIDATES else feature for feature in STAGE2_FEATURES
)
STAGE_FEATURES = {
    STAGE1: STAGE1_FEATURES,
    STAGE2: STAGE2_FEATURES,
    SOURCE_REQUESTS: SOURCE_REQUEST_FEATURES,
}

HISTORY_OF_DOMAIN = {SOURCE: SOURCE_HISTORY, TARGET: TARGET_HISTORY}
TIMES_OF_DOMAIN = {SOURCE: SOURCE_TIMES, TARGET: TARGET_TIMES}
"""Beside the ids of each history, in the data sets that were built with times of clicks."""
STAGE_OF_REQUESTS = {SOURCE: SOURCE_REQUESTS, TARGET: STAGE2}
CANDIDATES_OF_DOMAIN = {SOURCE: SOURCE_CANDIDATES, TARGET: CANDIDATES}

HOUR = "hour"
WEEKDAY = "weekday"
USER = "user"
IDLE = "idle"
LENGTH_OF_DOMAIN = {SOURCE: "source_length", TARGET: "target_length"}
INPUTS_OF_REQUEST_FEATURE = {
    HOUR: (REQUEST_TIME,),
    WEEKDAY: (REQUEST_TIME,),
    USER: (USER_ID,),
    IDLE: (HISTORY_TIME, REQUEST_TIME),
    **dict.fromkeys(LENGTH_OF_DOMAIN.values(), ()),
}
"""What a scorer can know of a request beside the items, and what it is read from beside these."""
OF_TIMES = (HOUR, WEEKDAY, IDLE)
"""Those that mean nothing where a data set's times are no times, see `Manifest.has_times`."""
ORDER = "order"
"""Unit of logs' times that put a user's clicks in order and are no times."""

ITEM = "item"
TITLE = "title"
TITLE_WORDS = "title_words"
COUNT = "count"
IMPRESSIONS = "impressions"
CATEGORICAL_ITEM_FEATURES = ("brand", "main_category", "second_category", "leaf_category")
ITEM_TABLE_COLUMNS = (
    ITEM,  # string: the raw item id ("" for the rows of pad and unknown)
    TITLE,  # string: raw title, for people ("" where unknown)
    COUNT,  # int64: clicks in the training period
    IMPRESSIONS,  # int64: times shown in the training period (clicks where only clicks are logged)
    TITLE_WORDS,  # list<int32>: ids in the vocabulary "<domain>.title_words"
    *CATEGORICAL_ITEM_FEATURES,  # int32: ids in the vocabulary "<domain>.<feature>", 1 if unknown
)


VECTOR = "vector"
"""A further column, of item tables whose items have vectors: float16 lists of a fixed size, the
same in both domains, of length 1, or zeros where the item has none."""

SIDE_FEATURES = (TITLE_WORDS, *CATEGORICAL_ITEM_FEATURES, VECTOR)
"""What may be known of an item beside its id."""


def features_of(stage: str, click_times: bool = False) -> tuple[Feature, ...]:
    """The features of a stage's records, of a data set with or without times of clicks."""
    return STAGE_FEATURES[stage] + (tuple(TIMES_OF_DOMAIN.values()) if click_times else ())


def schema_hash(click_times: bool = False) -> str:
    """Hash of everything that a reader of the directory relies on."""
    described = {
        "version": SCHEMA_VERSION,
        "features": {
            stage: [(f.name, f.dtype, f.ragged) for f in features_of(stage, click_times)]
            for stage in STAGE_FEATURES
        },
        "item_table": ITEM_TABLE_COLUMNS,
        "reserved_ids": (PAD_ID, OOV_ID, FIRST_ID),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def records_name(stage: str) -> str:
    """The tfds name of a stage's builder, the prefix of its shards' file names."""
    return f"sitn_{stage}"


def shard_glob(stage: str, split: str) -> str:
    """Pattern of a split's TFRecord shards, relative to the data set directory."""
    return f"{stage}/{records_name(stage)}-{split}.tfrecord-*"


def vocabulary_name(domain: str, feature: str) -> str:
    return f"{domain}.{feature}"


def vocabulary_path(domain: str, feature: str) -> str:
    """A vocabulary's file, relative to the data set directory."""
    return f"vocabularies/{vocabulary_name(domain, feature)}.txt"


ITEM_VECTORS_PATH = "items/vectors.npz"
"""float64 arrays: `components` `[W, P]`, and by domain its centre, `[W]`: a raw vector less the
centre, times the components, scaled to length 1, is the item table's."""


def item_table_path(domain: str) -> str:
    """An item table's file, relative to the data set directory."""
    return f"items/{domain}.parquet"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a data set directory holds and how it came to be (`manifest.json`).

    Attributes:
      schema_version, schema_hash: the layout; a reader refuses any other.
      dataset_hash: identity of the content; a run directory keeps it.
      inputs: the input files (path, domain, kind, bytes).
      options: every option of the job that made it.
      split: kind ("time" or "last") and the cutoffs in Unix seconds.
      max_history: longest history in any record, per domain.
      negatives: how negatives of target requests came to be: kind ("impressions" or
        "sampled"), per_click, power and seed; `sampling_rate` is the share of a click's
        unclicked alternatives that were kept, 1.0 for impressions.
      lines: input lines per domain: total, used, filtered by rule, rejected by reason.
      vocabularies: size (with the two reserved ids) and sha256, by "<domain>.<feature>".
      records: number of records, by stage and split.
      shards: number of records of each TFRecord shard, by its relative path.
      versions: of Python and of the packages that wrote it.
      vectors: of items: their `width` in the item files, their `dims` in the item tables, and
        `items`, how many have one, by domain; of vectors of titles also the `model`, its `name` and
        the `sha256` of its files. Empty where no item has a vector.
      click_times: whether records have the times of their histories' clicks.
    """

    schema_version: int
    schema_hash: str
    dataset_hash: str
    inputs: list[dict[str, Any]]
    options: dict[str, Any]
    split: dict[str, Any]
    max_history: int
    negatives: dict[str, Any]
    lines: dict[str, Any]
    vocabularies: dict[str, dict[str, Any]]
    records: dict[str, dict[str, int]]
    shards: dict[str, int]
    versions: dict[str, str]
    vectors: dict[str, Any] = dataclasses.field(default_factory=dict)
    click_times: bool = False

    def vocabulary_size(self, domain: str, feature: str = ITEM) -> int:
        """Number of ids, the two reserved ones included; 2 where there is no vocabulary."""
        entry = self.vocabularies.get(vocabulary_name(domain, feature))
        return int(entry["size"]) if entry else FIRST_ID

    @property
    def has_times(self) -> bool:
        """Whether its times are times; else numbers that put a user's clicks in order."""
        formats = self.options.get("formats", {})
        return all(log["time_unit"] != ORDER for log in formats.values())

    def features_of(self, stage: str) -> tuple[Feature, ...]:
        """The features of a stage's records."""
        return features_of(stage, self.click_times)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        return cls(**json.loads(text))


def read_manifest(data_dir: str | pathlib.Path) -> Manifest:
    """Reads and checks the manifest of a data set directory.

    Raises:
      InputError: no such directory, not a (whole) data set, or another schema.
    """
    path = pathlib.Path(data_dir) / MANIFEST_FILE
    job = "python -m pipelines.build_dataset"
    if not path.parent.is_dir():
        raise InputError(
            f"data_dir={data_dir} is not a directory",
            f"give data_dir=DATA where the data set is, or make one with {job}",
        )
    if not path.is_file():
        raise InputError(
            f"{data_dir} holds no {MANIFEST_FILE}, so it is not a finished data set",
            f"make one with {job}",
        )
    try:
        content = json.loads(path.read_text())
        version, its_hash = content["schema_version"], content["schema_hash"]
        expected = schema_hash(content.get("click_times", False))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a data set's manifest ({error})", "build it again"
        ) from error
    if version != SCHEMA_VERSION or its_hash != expected:
        raise InputError(
            f"{data_dir} has schema {version} ({its_hash}), this version reads schema "
            f"{SCHEMA_VERSION} ({expected})",
            f"build the data set again with {job}",
        )
    try:
        return Manifest(**content)
    except TypeError as error:
        raise InputError(f"{path} is damaged ({error})", "build the data set again") from error
