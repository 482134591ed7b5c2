"""What a data set job is to do: its options, checked, and nothing that runs."""

import dataclasses
from typing import Any

from pipelines.logs import line_blocks, log_format
from sitn_tf import schema
from sitn_tf.errors import InputError

SPLIT_KINDS = ("time", "last")


@dataclasses.dataclass(frozen=True)
class ItemFields:
    """Names of the fields of item files; a name that no line has gives no feature.

    Attributes:
      item, title, brand: plain fields.
      main_category, second_category: plain fields, used where the line has them.
      categories: a field with a path of categories, such as ["Books", "History"], or a list
        of paths, of which the first counts; gives both categories where they aren't plain.
    """

    item: str = "item_id"
    title: str = "title"
    brand: str = "brand"
    main_category: str = "main_category"
    second_category: str = "second_category"
    categories: str = "categories"


@dataclasses.dataclass(frozen=True)
class Job:
    """Options of a data set job.

    Attributes:
      logs: patterns of the log files by domain.
      items: patterns of the item files by domain; "" for none.
      output: the data set directory.
      formats: how to read each domain's log.
      file_format: "auto" (by file name) or one of line_blocks.KINDS.
      item_fields: names of the fields of item files.
      split: "time" or "last".
      train_until, validation_until: Unix seconds; None: from the fractions.
      validation_fraction, test_fraction: shares of the target clicks, by time.
      stage1_holdout: share of users that validate stage 1.
      max_history: longest history kept, the most recent clicks.
      min_source_history, min_target_history: a request with less is filtered.
      negatives: sampled for each click where the log has no impressions.
      keep_unknown_clicks: keep requests whose click is of an item without an id, although no
        sampled negative is of such an item.
      negative_power: of the popularity by which negatives are drawn.
      min_item_count: training clicks an item needs for an id of its own.
      title_word_min_count, title_words_max, title_length: words of titles that get ids.
      max_user_events: the latest events kept of a user in a domain.
      max_candidates: of one request.
      max_reject_rate: share of a log's lines above which the job fails.
      seed: of all that is sampled.
      shards: parts of the users, one of them in memory at a time.
      block_bytes: of a log parsed at once.
      keep_events: keep the events, so that a later job can extend the data set.
      extends: a data set directory whose events and ids this one carries on; "" for none.
    """

    logs: dict[str, str]
    output: str
    items: dict[str, str] = dataclasses.field(default_factory=dict)
    formats: dict[str, log_format.LogFormat] = dataclasses.field(
        default_factory=lambda: {d: log_format.LogFormat() for d in schema.DOMAINS}
    )
    file_format: str = "auto"
    item_fields: ItemFields = ItemFields()
    split: str = "time"
    train_until: int | None = None
    validation_until: int | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    stage1_holdout: float = 0.1
    max_history: int = 100
    min_source_history: int = 1
    min_target_history: int = 0
    negatives: int = 9
    keep_unknown_clicks: bool = False
    negative_power: float = 0.75
    min_item_count: int = 1
    title_word_min_count: int = 2
    title_words_max: int = 50_000
    title_length: int = 32
    max_user_events: int = 100_000
    max_candidates: int = 1_000
    max_reject_rate: float = 0.01
    seed: int = 0
    shards: int = 16
    block_bytes: int = 16 << 20
    keep_events: bool = False
    extends: str = ""

    def __post_init__(self) -> None:
        self._check_choice("split", self.split, SPLIT_KINDS)
        self._check_choice("file_format", self.file_format, ("auto", *line_blocks.KINDS))
        for name in ("max_history", "shards", "max_user_events", "max_candidates", "block_bytes",
                     "title_length", "min_item_count", "title_word_min_count"):  # fmt: skip
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("min_source_history", "min_target_history", "title_words_max", "seed"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        for name in ("stage1_holdout", "validation_fraction", "test_fraction"):
            self._check(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._check("max_reject_rate", 0 <= self.max_reject_rate <= 1, "in [0, 1]")
        self._check("negative_power", 0 <= self.negative_power <= 10, "in [0, 10]")
        self._check("negatives", self.negatives >= 1, "at least 1")
        self._check_fields()
        self._check_cutoffs()

    def _check(self, name: str, fine: bool, accepted: str) -> None:
        if not fine:
            raise InputError(f"{name}={getattr(self, name)} is not {accepted}")

    def _check_choice(self, name: str, value: str, accepted: tuple[str, ...]) -> None:
        if value not in accepted:
            raise InputError(f"{name}={value} is not one of: {', '.join(accepted)}")

    def _check_fields(self) -> None:
        for domain, log in self.formats.items():
            option, names = f"formats.{domain}", list(log.fields.values())
            for name in names:
                if not name:
                    raise InputError(f"a field of the {domain} log has an empty name")
                if names.count(name) > 1:
                    raise InputError(f"the field {name} of the {domain} log is given two meanings")
            if log.time_unit not in log_format.TIME_UNITS:
                accepted = ", ".join(log_format.TIME_UNITS)
                raise InputError(f"{option}.time_unit={log.time_unit} is not one of: {accepted}")
            if (log.request or log.score) and not log.label:
                raise InputError(
                    f"{option}.request and {option}.score describe impressions: "
                    f"give {option}.label too"
                )
            if (log.rating is None) != (log.min_rating is None):
                raise InputError(
                    f"{option}.rating and {option}.min_rating go together: give both or none"
                )

    def _check_cutoffs(self) -> None:
        if (self.train_until is None) != (self.validation_until is None):
            raise InputError("train_until and validation_until go together: give both or none")
        if self.train_until is not None and self.validation_until is not None:
            if self.split != "time":
                raise InputError("train_until is for split=time only")
            if not 0 < self.train_until <= self.validation_until:
                raise InputError(
                    f"train_until={self.train_until} must be positive and not after "
                    f"validation_until={self.validation_until}"
                )
        if self.validation_fraction + self.test_fraction >= 1:
            raise InputError(
                f"validation_fraction={self.validation_fraction} and "
                f"test_fraction={self.test_fraction} leave nothing to train on"
            )

    @property
    def impressions(self) -> bool:
        """Whether the target log holds impressions, clicked or not."""
        return self.formats[schema.TARGET].label is not None

    def as_json(self) -> dict[str, Any]:
        """The options in a manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, options: dict[str, Any]) -> "Job":
        """The job that a manifest's options describe.

        Raises:
          InputError, LookupError, TypeError, AttributeError: they describe none.
        """
        known = {
            **options,
            "formats": {d: log_format.LogFormat(**f) for d, f in options["formats"].items()},
            "item_fields": ItemFields(**options["item_fields"]),
        }
        return cls(**known)
