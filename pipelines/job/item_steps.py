"""A domain's counted items to its vocabularies and its item table, as files."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import manifest_entries
from pipelines.job import shuffle
from pipelines.job.summary import PlacedFile, TableFacts, VectorFacts
from pipelines.job.workspace import Work
from pipelines.logs import files
from pipelines.options import Job
from pipelines.records import (
    item_files,
    item_table,
    item_vectors,
    request_rules,
    title_vectors,
    vector_column,
    vocabulary,
)
from pipelines.statistics import feature_statistics
from sitn_tf import schema
from sitn_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class DomainItems:
    """A domain's items: the file of those with ids, in order of these, and files of raw items."""

    domain: str
    vocabulary: str
    raw: tuple[str, ...]


def merge_counts(
    element: tuple[tuple[str, int], Iterable[shuffle.Counts]], work: Work
) -> tuple[str, str]:
    """The counts of a domain's items in one bucket, of many shards, to (domain, file of sums)."""
    (domain, bucket), counts = element
    path = work.place(f"counts-{domain}-of-{bucket}")
    files.write_table(path, vocabulary.merged(map(shuffle.read_counts, counts)))
    return domain, path


def build_vocabulary(
    element: tuple[str, Iterable[str]], raw_items: Iterable[tuple[str, str]], work: Work
) -> DomainItems:
    """A domain's item counts, in a few files, to its items with ids.

    Args:
      raw_items: (domain, file) of the items that are described.
    """
    domain, paths = element
    raw = tuple(sorted(path for of, path in raw_items if of == domain))
    counts: Iterable[pa.Table] = files.ahead(files.read_table_batches, sorted(paths))
    if not work.job.min_item_count:
        read = files.ahead(files.read_table_batches, raw)
        described = (vocabulary.without_events(table[schema.ITEM]) for table in read)
        counts = itertools.chain(counts, described)
    ordered = vocabulary.ordered(
        vocabulary.merged(counts),
        work.job.min_item_count,
        work.carried.tokens(domain, schema.ITEM),
    )
    path = work.place(f"items-{domain}")
    files.write_table(path, ordered)
    return DomainItems(domain, path, raw)


def _read(items: DomainItems) -> tuple[vocabulary.Vocabulary, item_table.Described]:
    known = vocabulary.Vocabulary.of(files.read_table_batches(items.vocabulary))
    return known, item_table.Described.of(_raw_tables(items), known)


def _raw_tables(items: DomainItems) -> Iterator[pa.Table]:
    return files.ahead(files.read_table_batches, items.raw)


def new_titles(items: DomainItems, work: Work) -> Iterator[str]:
    """The titles of a domain's items that no model has made vectors of yet, each once."""
    _, described = _read(items)
    titles = pc.unique(described.column(schema.TITLE).cast(pa.large_string()))
    done = pa.array([""], titles.type)
    if work.carried.titles:
        carried = title_vectors.titles(work.carried.titles)
        done = pa.concat_arrays([done, carried.cast(titles.type)])
    yield from titles.filter(pc.invert(pc.is_in(titles, value_set=done))).to_pylist()


def write_titles(made: list[tuple[str, np.ndarray]], work: Work) -> str:
    """Titles with their vectors to a file of them."""
    path = work.place("titles")
    title_vectors.write(path, made)
    return path


def _raw_vectors(described: item_table.Described, work: Work, titles: list[str]) -> np.ndarray:
    """Vectors of items, float32 [V, W]: of their titles in files, or of their own."""
    if titles:
        return title_vectors.look_up(described.column(schema.TITLE), titles)
    if schema.VECTOR in described.texts:
        return vector_column.matrix(described.column(schema.VECTOR), work.vector_width)
    return np.zeros((len(described.items), 0), np.float32)


def vector_moments(
    items: DomainItems, work: Work, titles: list[str]
) -> Iterator[item_vectors.Moments]:
    """Moments of the vectors of a domain's items; none where no item has a vector.

    Args:
      titles: files of titles with their vectors, where a model makes these.
    """
    if not (titles or work.vector_width):
        return
    _, described = _read(items)
    vectors = _raw_vectors(described, work, titles)
    if vectors.any():
        yield item_vectors.Moments.of(items.domain, vectors)


def fit_vectors(
    checked: request_rules.Cutoffs,
    moments: list[item_vectors.Moments],
    work: Work,
    titles: list[str],
) -> Iterator[VectorFacts]:
    """Both domains' moments to the file of what makes their items' vectors.

    What a data set that is extended brings is kept: its items' vectors stay as they are. `checked`
    is only waited for: where logs have no events, that is what to say.

    Raises:
      InputError: vectors are asked for, but no item of the logs has what makes them.
    """
    job, known = work.job, work.carried.vectors
    if not moments:
        for option, value, what in (
            ("item_fields.vector", job.item_fields.vector, "such a list of numbers"),
            ("title_model", job.title_model, "a title"),
        ):
            if value and not known:
                raise InputError(
                    f"{option}={value}: no item of the logs has {what}",
                    "check that logs and item files belong together, or leave it out",
                )
        return
    kept = None
    if titles and job.keep_events:
        path = work.place("all-titles")
        kept = PlacedFile(path, manifest_entries.KEPT_TITLES, title_vectors.together(titles, path))
    carried = item_vectors.Basis.read(known) if known else None
    basis = item_vectors.fit(moments, work.job.vector_dim, carried)
    path = work.place("item-vectors")
    checksum = files.write_bytes(path, basis.to_bytes())
    yield VectorFacts(
        PlacedFile(path, schema.ITEM_VECTORS_PATH, checksum),
        basis.width,
        basis.components.shape[1],
        {m.domain: m.count for m in sorted(moments, key=lambda m: m.domain)},
        kept,
    )


def write_item_table(
    items: DomainItems, work: Work, vectors: list[VectorFacts], titles: list[str]
) -> TableFacts:
    """A domain's items to the files of its item table.

    Args:
      titles: as of `vector_moments`.
      vectors: one entry, or none where no item of either domain has a vector.
    """
    domain, job = items.domain, work.job
    known, described = _read(items)
    if described.read and not (described.there & (known.impressions > 0)).any():
        raise _no_item_described(job, items, described.read, known.items)
    tokens = _tokens(described, work, domain)
    path = work.place(f"item-table-{domain}")
    checksum = _write_parts(
        path,
        item_table.table_parts(known, described, tokens, job.title_length),
        _short_vectors(described, work, domain, vectors, titles),
    )
    placed = [PlacedFile(path, schema.item_table_path(domain), checksum)]
    entries = {}
    for name, column in {schema.ITEM: known.items, **tokens}.items():
        text_path = work.place(f"vocabulary-{domain}-{name}")
        entry = vocabulary.write_text(text_path, column)
        if described.read and name == schema.ITEM:
            entry = dataclasses.replace(entry, described=int(described.there.sum()))
        entries[schema.vocabulary_name(domain, name)] = entry
        placed.append(PlacedFile(text_path, schema.vocabulary_path(domain, name), entry.sha256))
    kept = None
    if job.keep_events:  # an item without a click today may have one tomorrow
        path = work.place(f"raw-items-of-{domain}")
        # Read once more rather than held while the table is made.
        checksum = files.write_table(path, item_files.together(_raw_tables(items)))
        kept = PlacedFile(path, manifest_entries.kept_items(domain), checksum)
    curve = feature_statistics.popularity_curve(known.clicks)
    return TableFacts(domain, entries, tuple(placed), kept, curve)


def _tokens(described: item_table.Described, work: Work, domain: str) -> dict[str, pa.Array]:
    """The vocabularies of a domain's side features."""

    def of_column(
        name: str, column: str, tokens: Callable[[pa.Array], pa.Array], least: int, most: int | None
    ) -> pa.Array:
        texts = (part[column].combine_chunks() for part in described.parts(column))
        counts = vocabulary.merged(item_table.count_tokens(tokens(text)) for text in texts)
        carried = work.carried.tokens(domain, name)
        return item_table.vocabulary_of(counts, least, most, carried)

    def words(titles: pa.Array) -> pa.Array:
        return item_table.words(titles, work.job.title_length)[0]

    def filled(texts: pa.Array) -> pa.Array:
        return texts.filter(pc.not_equal(texts, ""))

    least, most = work.job.title_word_min_count, work.job.title_words_max
    return {
        schema.TITLE_WORDS: of_column(schema.TITLE_WORDS, schema.TITLE, words, least, most),
        **{
            name: of_column(name, name, filled, 1, None)
            for name in schema.CATEGORICAL_ITEM_FEATURES
        },
    }


def _short_vectors(
    described: item_table.Described,
    work: Work,
    domain: str,
    vectors: list[VectorFacts],
    titles: list[str],
) -> np.ndarray | None:
    """Vectors of a domain's items as tables have them, float16 [V, P]; None where none has one."""
    for made in vectors:
        if domain in made.items:
            raw = _raw_vectors(described, work, titles)
            return item_vectors.Basis.read(made.basis.path).apply(domain, raw)
    return None


def _write_parts(path: str, parts: Iterable[pa.Table], vectors: np.ndarray | None) -> str:
    """Parts of an item table, with its items' vectors [V, P], to a Parquet file; its SHA-256."""
    begin = -schema.FIRST_ID
    with files.hashing(path) as stream, contextlib.ExitStack() as stack:
        writer = None
        for part in parts:
            if vectors is not None:
                of_items = vectors[max(begin, 0) : begin + len(part)]
                reserved = len(part) - len(of_items)
                column = item_vectors.as_column(np.pad(of_items, ((reserved, 0), (0, 0))))
                part = part.append_column(schema.VECTOR, column)
            writer = writer or stack.enter_context(pq.ParquetWriter(stream, part.schema))
            writer.write_table(part)
            begin += len(part)
    return stream.sha256


def _no_item_described(job: Job, items: DomainItems, read: int, known: pa.Array) -> InputError:
    """The error of item files that share no id with the log."""
    domain = items.domain
    first = next(table[schema.ITEM][0].as_py() for table in _raw_tables(items) if len(table))
    return InputError(
        f"items.{domain}={job.items.get(domain, '')} describes none of the {len(known):,} items "
        f"of the {domain} log: its {read:,} items are such as {first}, "
        f"those of the log such as {known[0].as_py()}: check item_fields.item, "
        f"formats.{domain}.item and that the files belong together"
    )
