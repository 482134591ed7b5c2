"""A job under way: where its workers put their files, and what it carries on."""

import dataclasses

import pyarrow as pa

from pipelines.job.title_model import TitleModel
from pipelines.logs import files, line_counts
from pipelines.options import Job
from pipelines.records import shards, vocabulary
from sitn_tf import schema


@dataclasses.dataclass(frozen=True)
class Carried:
    """What a data set brings to the one that extends it.

    Attributes:
      events: (shard, part) of its sorted events.
      items: by domain, the file of all its raw items.
      known: by "<domain>.<feature>", its vocabulary file: the ids in it stay.
      times: of its target clicks.
      vectors: the file of what made its items' vectors, "" if none have one.
      titles: the file of its titles' vectors, "" if no model made any.
    """

    events: tuple[tuple[int, shards.Part], ...] = ()
    items: tuple[tuple[str, str], ...] = ()
    known: tuple[tuple[str, str], ...] = ()
    times: line_counts.TimeHistogram = dataclasses.field(default_factory=line_counts.TimeHistogram)
    vectors: str = ""
    titles: str = ""

    def tokens(self, domain: str, feature: str) -> pa.Array | None:
        """Tokens whose ids are given already, None if none are."""
        path = dict(self.known).get(schema.vocabulary_name(domain, feature))
        return None if path is None else vocabulary.read_text(path)


@dataclasses.dataclass(frozen=True)
class Work:
    """A job, where its passing files go (a folder in the data set to be), what it extends.

    `vector_width` is that of item vectors in the item files, 0 where they have none;
    `title_model` makes them of titles instead. `user_key` hashes user ids, None leaves them.
    """

    job: Job
    folder: str
    carried: Carried = Carried()
    vector_width: int = 0
    title_model: TitleModel | None = None
    user_key: bytes | None = dataclasses.field(default=None, repr=False)

    def place(self, name: str) -> str:
        return files.attempt_path(self.folder, name)
