"""A domain's counted items to its vocabularies and its item table, as files."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.job import shuffle
from pipelines.job.summary import PlacedFile, TableFacts, VectorFacts
from pipelines.job.workspace import Work
from pipelines.logs import files
from pipelines.options import Job
from pipelines.records import (
    item_files,
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


def _read(items: DomainItems) -> tuple[vocabulary.Vocabulary, list[pa.Table]]:
    known = vocabulary.Vocabulary.of(files.read_table_batches(items.vocabulary))
    return known, list(files.ahead(files.read_table_batches, items.raw))


def new_titles(items: DomainItems, work: Work) -> Iterator[str]:
    """The titles of a domain's items that no model has made vectors of yet, each once."""
    known, everything = _read(items)
    raw, _ = item_files.select(everything, known.items)
    titles = pc.unique(raw[schema.TITLE])
    done = pa.array([""], pa.string())
    if work.carried.titles:
        done = pa.concat_arrays([done, title_vectors.titles(work.carried.titles)])
    yield from titles.filter(pc.invert(pc.is_in(titles, value_set=done))).to_pylist()


def write_titles(made: list[tuple[str, np.ndarray]], work: Work) -> str:
    """Titles with their vectors to a file of them."""
    path = work.place("titles")
    title_vectors.write(path, made)
    return path


def _raw_vectors(raw: pa.Table, work: Work, titles: list[str]) -> np.ndarray:
    """Vectors of RAW rows, float32 [V, W]: of their titles in files, or of their own."""
    if titles:
        return title_vectors.look_up(raw[schema.TITLE], titles)
    if schema.VECTOR in raw.column_names:
        return vector_column.matrix(raw[schema.VECTOR], work.vector_width)
    return np.zeros((len(raw), 0), np.float32)


def vector_moments(
    items: DomainItems, work: Work, titles: list[str]
) -> Iterator[item_vectors.Moments]:
    """Moments of the vectors of a domain's items; none where no item has a vector.

    Args:
      titles: files of titles with their vectors, where a model makes these.
    """
    if not (titles or work.vector_width):
        return
    known, everything = _read(items)
    raw, _ = item_files.select(everything, known.items)
    vectors = _raw_vectors(raw, work, titles)
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
    kept = ""
    if titles and job.keep_events:
        kept = work.place("all-titles")
        title_vectors.together(titles, kept)
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
    known, everything = _read(items)
    raw, described = item_files.select(everything, known.items)
    in_files = sum(map(len, everything))
    if in_files and not (described & (known.impressions > 0)).any():
        raise _no_item_described(work.job, domain, everything, known.items)
    flat, _ = item_files.words(raw[schema.TITLE].combine_chunks(), job.title_length)
    tokens = {
        schema.TITLE_WORDS: item_files.vocabulary_of(
            flat,
            job.title_word_min_count,
            job.title_words_max,
            work.carried.tokens(domain, schema.TITLE_WORDS),
        )
    }
    for name in schema.CATEGORICAL_ITEM_FEATURES:
        filled = raw[name].filter(pc.not_equal(raw[name], ""))
        tokens[name] = item_files.vocabulary_of(
            filled.combine_chunks(), 1, None, work.carried.tokens(domain, name)
        )
    table = item_files.build_table(known, raw, tokens, job.title_length)
    for made in vectors:
        if domain in made.items:
            rows = _raw_vectors(raw, work, titles)
            short = item_vectors.Basis.read(made.basis.path).apply(domain, rows)
            table = table.append_column(schema.VECTOR, item_vectors.as_column(short))
    path = work.place(f"item-table-{domain}")
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    checksum = files.write_bytes(path, buffer.getvalue().to_pybytes())
    placed = [PlacedFile(path, schema.item_table_path(domain), checksum)]
    entries = {}
    for name, column in {schema.ITEM: known.items, **tokens}.items():
        text_path = work.place(f"vocabulary-{domain}-{name}")
        entry = vocabulary.write_text(text_path, column)
        if in_files and name == schema.ITEM:
            entry = dataclasses.replace(entry, described=int(described.sum()))
        entries[schema.vocabulary_name(domain, name)] = entry
        placed.append(PlacedFile(text_path, schema.vocabulary_path(domain, name), entry.sha256))
    kept = work.place(f"raw-items-of-{domain}")
    if job.keep_events:  # an item without a click today may have one tomorrow
        files.write_table(kept, item_files.together(everything))
    curve = feature_statistics.popularity_curve(table[schema.COUNT])
    return TableFacts(domain, entries, tuple(placed), kept, curve)


def _no_item_described(
    job: Job, domain: str, files_of_items: list[pa.Table], known: pa.Array
) -> InputError:
    """The error of item files that share no id with the log."""
    first = next(table[schema.ITEM][0].as_py() for table in files_of_items if len(table))
    return InputError(
        f"items.{domain}={job.items.get(domain, '')} describes none of the {len(known):,} items "
        f"of the {domain} log: its {sum(map(len, files_of_items)):,} items are such as {first}, "
        f"those of the log such as {known[0].as_py()}: check item_fields.item, "
        f"formats.{domain}.item and that the files belong together"
    )
