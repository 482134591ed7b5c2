"""What a data set job is to do: its options, checked, and nothing that runs."""

import dataclasses

from pipelines import option_fields
from pipelines.logs import line_blocks, log_format
from pipelines.option_fields import at_least, one_of, option
from sitn_tf import schema
from sitn_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class ItemFields:
    """Names of the fields of item files; a name that no line has gives no feature.

    Attributes:
      item, title, brand: plain fields.
      main_category, second_category, leaf_category: plain fields, used where the line has them.
      categories: a field with a path of categories, such as ["Books", "History", "Rome"], or a
        list of paths, of which the first counts; gives the categories that aren't plain: its
        first two, and as the leaf its last where it has more than two.
      vector: a field with a list of numbers, such as an embedding of the item's image or title,
        of one length in all files; "" for none. Zeros say as little as no list.
    """

    item: str = "item_id"
    title: str = "title"
    brand: str = "brand"
    main_category: str = "main_category"
    second_category: str = "second_category"
    leaf_category: str = "leaf_category"
    categories: str = "categories"
    vector: str = ""


_SHARE = ("in [0, 1)", lambda value: 0 <= value < 1)


@dataclasses.dataclass(frozen=True)
class Job:
    """Options of a data set job; those without a meaning beside them are these.

    Attributes:
      logs: patterns of the log files by domain.
      output: the data set directory.
      items: patterns of the item files by domain; "" for none.
      formats: how to read each domain's log.
      file_format: "auto" (by file name) or one of line_blocks.KINDS.
      item_fields: names of the fields of item files.
      title_length: words of a title that are kept.
      hashed_users: whether hashes stand for user ids (logs/user_hashes.py).
      hashed_with: fingerprint of their key, which the job gets from it; "" for none.
    """

    logs: dict[str, str]
    output: str
    items: dict[str, str] = dataclasses.field(default_factory=dict)
    formats: dict[str, log_format.LogFormat] = dataclasses.field(
        default_factory=lambda: {d: log_format.LogFormat() for d in schema.DOMAINS}
    )
    file_format: str = option("auto", "", one_of("auto", *line_blocks.KINDS))
    item_fields: ItemFields = ItemFields()
    split: str = option(
        "time",
        "time, or last: each user's last request tests, the one before validates",
        one_of("time", "last"),
    )
    train_until: int | None = option(None, "Unix seconds: training is before")
    validation_until: int | None = option(
        None, "Unix seconds: validation is before, test is the rest"
    )
    validation_fraction: float = option(0.1, "of the target clicks, by time", _SHARE)
    test_fraction: float = option(0.1, "of the target clicks, by time", _SHARE)
    stage1_holdout: float = option(0.1, "share of users that validate stage 1", _SHARE)
    max_history: int = option(100, "longest history kept, the most recent clicks", at_least(1))
    min_source_history: int = option(
        1, "requests with fewer source clicks before them are filtered", at_least(0)
    )
    min_target_history: int = option(
        0, "requests with fewer target clicks before them are filtered", at_least(0)
    )
    negatives: int = option(
        9, "sampled for each click where the log has no impressions", at_least(1)
    )
    # Sampled negatives are never of an item without an id: the click would stand out.
    keep_unknown_clicks: bool = option(
        False,
        "with sampled negatives, keep requests whose clicked item is not of the training period",
    )
    negative_power: float = option(
        0.75,
        "popularity to this power draws the negatives",
        ("in [0, 10]", lambda value: 0 <= value <= 10),
    )
    min_item_count: int = option(
        1,
        "training clicks an item needs for an id of its own; 0 gives one to all of the item files",
        at_least(0),
    )
    title_word_min_count: int = option(2, "items whose titles must have a word", at_least(1))
    title_words_max: int = option(50_000, "size of the vocabulary of title words", at_least(0))
    title_length: int = option(32, "", at_least(1))
    title_model: str = option(
        "",
        "sentence-transformers model, a folder or an installed package: vectors from titles",
    )
    vector_dim: int = option(
        96, "numbers that longer vectors of items are reduced to, by a PCA", at_least(1)
    )
    max_user_events: int = option(100_000, "latest events kept of a user in a domain", at_least(1))
    request_seconds: int = option(
        3_600,
        "that a request lasts: later lines of its id, which may have been given again, are of "
        "another request",
        at_least(0),
    )
    max_candidates: int = option(1_000, "requests with more are filtered", at_least(1))
    max_reject_rate: float = option(
        0.01,
        "share of rejected lines above which the job fails",
        ("in [0, 1]", lambda value: 0 <= value <= 1),
    )
    seed: int = option(0, "of everything that is sampled", at_least(0))
    shards: int = option(16, "parts the users are divided into; more need less memory", at_least(1))
    shuffle: str = option(
        "auto",
        "how events come to their user's shard: files, beam (the batches themselves), or auto: "
        "files on Beam's local runners, beam on all others",
        one_of("auto", "files", "beam"),
    )
    record_files: int = option(
        0,
        "files of each split, at least; 0: one a shard or, of more than 16, some of about 128 MiB",
        at_least(0),
    )
    block_bytes: int = option(16 << 20, "of a log parsed at once", at_least(1))
    worker_memory: int = option(
        3072,
        "MiB that a thread of a worker on a cluster has; jobs that need more don't start",
        at_least(1),
    )
    source_requests: bool = option(
        False, "also requests of the source domain, for models that learn from both"
    )
    click_times: bool = option(
        False, "also the time of each click of a history, for encoder.ages of training"
    )
    keep_events: bool = option(False, "keep the events: the data set can be extended")
    hashed_users: bool = False
    hashed_with: str = ""
    extends: str = option(
        "", "a data set with kept events: the logs are added to those it was made of"
    )

    def __post_init__(self) -> None:
        option_fields.check(self)
        self._check_fields()
        self._check_cutoffs()

    def _check_fields(self) -> None:
        if self.title_model and self.item_fields.vector:
            raise InputError(
                f"title_model={self.title_model} and item_fields.vector={self.item_fields.vector} "
                "both make vectors of items: give one"
            )
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
            if log.time_unit == schema.ORDER:
                self._check_order(option)
            if (log.request or log.score) and not log.label:
                raise InputError(
                    f"{option}.request and {option}.score describe impressions: "
                    f"give {option}.label too"
                )
            if (log.rating is None) != (log.min_rating is None):
                raise InputError(
                    f"{option}.rating and {option}.min_rating go together: give both or none"
                )

    def _check_order(self, option: str) -> None:
        """Numbers that order clicks are of both logs, and are asked for nothing else."""
        if len({log.time_unit for log in self.formats.values()}) > 1:
            raise InputError(
                f"{option}.time_unit=order orders the clicks of both logs: give it for both"
            )
        if self.split != "last":
            raise InputError(f"{option}.time_unit=order has no moment to split at: give split=last")
        for name in ("click_times", "keep_events", "extends"):
            if value := getattr(self, name):
                raise InputError(
                    f"{name}={value} needs times, and {option}.time_unit=order has none",
                    "leave it out",
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
            latest = max(log.max_time for log in self.formats.values())
            if self.validation_until > latest:
                raise InputError(
                    f"validation_until={self.validation_until} is past {latest}, the latest time "
                    "that a log may have",
                    "cutoffs are in seconds since 1970, whatever the unit of the logs",
                )
        if self.validation_fraction + self.test_fraction >= 1:
            raise InputError(
                f"validation_fraction={self.validation_fraction} and "
                f"test_fraction={self.test_fraction} leave nothing to train on"
            )

    @property
    def request_domains(self) -> tuple[str, ...]:
        """The domains whose clicks or impressions become requests, the target first."""
        return (schema.TARGET, schema.SOURCE) if self.source_requests else (schema.TARGET,)

    @property
    def groups(self) -> int:
        """Of neighbouring user shards whose records are together, where a manifest tells it."""
        return min(self.shards, self.record_files or self.shards)

    def impressions(self, domain: str = schema.TARGET) -> bool:
        """Whether a domain's log holds impressions, clicked or not."""
        return self.formats[domain].label is not None

    def min_history(self, domain: str) -> int:
        """Clicks of a domain without which a request is filtered."""
        return self.min_source_history if domain == schema.SOURCE else self.min_target_history
