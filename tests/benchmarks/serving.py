"""Serving speed through the C++ runtime: one request, against one row a candidate.

    python -m tests.benchmarks.serving [--run_dir=RUN/stage2] [--candidates=500]
    python -m tests.benchmarks.serving --servers=localhost:8500,localhost:9500

Then batching against none, with 20 and with 500 candidates: requests merged as TF Serving's
batcher does, against one a call. The merging itself is not in it, so it is the most that
batching can gain. With --servers, of one without and one with batching, theirs is measured
too, over gRPC, from 16 callers.

Without a run, a model of the default size with random weights is made. Latencies are taken
inside the loader's process (export/loader.c): no Python and no pipe is in them. The two
forms are measured in alternating turns, so that a busy machine slows both.
"""

import json
import os
import pathlib
import statistics
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from export import native, requests, transports
from export.client import run_load
from export.exporting import export
from export.options import ExportOptions
from sitn_tf import cli, config, quiet, schema, whole_files
from tests.export import batcher

FLAGS = flags.FlagValues()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Stage-2 run to export.", flag_values=FLAGS)
_CANDIDATES = flags.DEFINE_integer("candidates", 500, "Of a request.", 1, flag_values=FLAGS)
_HISTORY = flags.DEFINE_integer("history", 100, "Length of both.", 1, flag_values=FLAGS)
_ITEMS = flags.DEFINE_integer("items", 20_000, "A domain, without a run.", 10, flag_values=FLAGS)
_REQUESTS = flags.DEFINE_integer("requests", 400, "Timed requests.", 20, flag_values=FLAGS)
_TURNS = flags.DEFINE_integer("turns", 5, "Alternating turns.", 1, flag_values=FLAGS)
_THREADS = flags.DEFINE_integer("threads", 2, "Requests in flight.", 1, flag_values=FLAGS)
_INTRA_OP = flags.DEFINE_integer(
    "intra_op", 1, "Threads of an operation, as in compose.yaml.", flag_values=FLAGS
)
_INTER_OP = flags.DEFINE_integer(
    "inter_op", 0, "Threads between operations, as in compose.yaml.", flag_values=FLAGS
)
_TABLES = flags.DEFINE_string("tables", "float32", "Of item vectors.", flag_values=FLAGS)
_SERVERS = flags.DEFINE_list("servers", [], "host:port of TF Serving.", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "JSON of the results.", flag_values=FLAGS)

WORDS = 2000
DISTINCT = 8
"""Different requests sent in turn."""
BATCHED = (20, 500)
"""Candidates of the requests that are batched."""
BATCH = 16
CALLERS = 16
QUEUED = 200_000
"""Arrivals of a simulated queue: its p99 to a few hundredths."""


def write_run(folder: pathlib.Path, items: int, max_history: int) -> pathlib.Path:
    """A finished run of the default model over made-up items, with random weights."""
    import tensorflow as tf

    from sitn_tf import runs
    from sitn_tf.models.registry import make_scorer

    rng = np.random.default_rng(0)
    sizes = {"item": items + 2, "title_words": WORDS, "brand": 500, "main_category": 30}
    for domain in schema.DOMAINS:
        _write_items(folder, domain, sizes, rng)
    manifest = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        schema_hash=schema.schema_hash(),
        dataset_hash="made up",
        inputs=[],
        options={},
        split={},
        max_history=max_history,
        negatives={},
        lines={},
        vocabularies={f"{d}.{f}": {"size": n} for d in schema.DOMAINS for f, n in sizes.items()},
        records={},
        shards={},
        versions={},
    )
    settings = config.default()
    info = runs.RunInfo(schema.STAGE2, str(folder), "made up", "none", runs.versions())
    run_dir = folder / "stage2"
    runs.prepare(run_dir, settings, manifest, info)
    tables = runs.read_tables(run_dir, manifest, settings)
    scorer = make_scorer(settings, tables, max_history)
    tf.train.Checkpoint(model=scorer).save(str(run_dir / runs.BEST / "ckpt"))
    whole_files.write_json(run_dir / runs.METRICS_FILE, {})
    return run_dir


def _write_items(
    folder: pathlib.Path, domain: str, sizes: dict[str, int], rng: np.random.Generator
) -> None:
    rows = sizes["item"]
    names = ["", "", *(f"{domain}-item-{i:07d}" for i in range(2, rows))]
    columns = {
        schema.ITEM: pa.array(names),
        schema.TITLE: pa.array(names),
        schema.COUNT: pa.array(np.arange(rows)[::-1]),
        schema.IMPRESSIONS: pa.array(np.arange(rows)[::-1]),
        schema.TITLE_WORDS: pa.array(
            [rng.integers(2, WORDS, size=8).tolist() for _ in range(rows)], pa.list_(pa.int32())
        ),
        **{
            f: pa.array(rng.integers(2, sizes.get(f, 3), size=rows).astype(np.int32))
            for f in schema.CATEGORICAL_ITEM_FEATURES
        },
    }
    for path in (schema.item_table_path(domain), schema.vocabulary_path(domain, schema.ITEM)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / schema.item_table_path(domain))
    (folder / schema.vocabulary_path(domain, schema.ITEM)).write_text(
        "".join(f"{name}\n" for name in names[2:])
    )


def make_requests(version: pathlib.Path, candidates: int, history: int) -> list[requests.Request]:
    """Requests of known items, of the same lengths."""
    rng = np.random.default_rng(1)
    known = {
        domain: list(requests.read_vocabulary(version / "assets" / f"{domain}.item.txt"))
        for domain in schema.DOMAINS
    }

    def draw(domain: str, size: int) -> tuple[str, ...]:
        return tuple(known[domain][i] for i in rng.integers(0, len(known[domain]), size))

    return [
        requests.Request(
            draw(schema.SOURCE, history),
            draw(schema.TARGET, history),
            draw(schema.TARGET, candidates),
        )
        for _ in range(DISTINCT)
    ]


def row_a_candidate(request: requests.Request) -> list[requests.Request]:
    """The request as the usual click model takes it: the histories again for each item."""
    return [
        requests.Request(request.source_history, request.target_history, (item,))
        for item in request.candidates
    ]


def measure(version: pathlib.Path, asked: list[requests.Request]) -> dict[str, float]:
    """Throughput, latencies and their ratios; see the module's docstring."""
    from export import signatures

    grouped = [(signatures.SCORE, requests.score_inputs([r])) for r in asked]
    rows = [(signatures.SCORE, requests.score_inputs(row_a_candidate(r))) for r in asked[:2]]
    count = _REQUESTS.value
    with native.Session(version, _INTRA_OP.value, _INTER_OP.value) as session:
        _check_equal(session, grouped[0], rows[0])
        session.benchmark(grouped, 40)
        session.benchmark(rows, 4)
        turns = [_turn(session, grouped, rows, count // _TURNS.value) for _ in range(_TURNS.value)]
        found = {name: statistics.median(t[name] for t in turns) for name in turns[0]}
        for name, poisson in (("even", False), ("poisson", True)):
            found |= _half_load(session, grouped, found["throughput"] / 2, name, poisson)
    return found


def measure_batching(version: pathlib.Path, history: int) -> dict[str, float]:
    """Requests a second and p50, one request a call and `BATCH` merged, by candidates."""
    from export import signatures

    measured = {}
    with native.Session(version, _INTRA_OP.value, _INTER_OP.value) as session:
        for candidates in BATCHED:
            asked = make_requests(version, candidates, history)
            single = [requests.score_inputs([r]) for r in asked]
            merged = batcher.merge([single[i % len(single)] for i in range(BATCH)])
            alone = [(signatures.SCORE, inputs) for inputs in single]
            together = [(signatures.SCORE, merged)]
            count, threads = max(_REQUESTS.value // _TURNS.value, 2 * BATCH), _THREADS.value
            session.benchmark(alone, 40)
            session.benchmark(together, 4)
            turns = [
                (
                    session.benchmark(alone, count, threads),
                    session.benchmark(together, count // BATCH, threads),
                )
                for _ in range(_TURNS.value)
            ]
            one = statistics.median(a.throughput for a, _ in turns)
            batched = statistics.median(b.throughput for _, b in turns) * BATCH
            measured |= {
                f"unbatched_{candidates}": one,
                f"unbatched_{candidates}_p50_ms": statistics.median(
                    a.percentile(50) for a, _ in turns
                ),
                f"batched_{candidates}": batched,
                f"batched_{candidates}_p50_ms": statistics.median(
                    b.percentile(50) for _, b in turns
                ),
                f"batching_gain_{candidates}": batched / one,
            }
    return measured


def measure_servers(version: pathlib.Path, history: int, addresses: list[str]) -> list[str]:
    """A line for each server and number of candidates."""
    lines = []
    for candidates in BATCHED:
        asked = make_requests(version, candidates, history)
        for address in addresses:
            client = transports.make_client("grpc", address, deadline=5.0)
            run_load(client, asked, 100, CALLERS)
            report = run_load(client, asked, _REQUESTS.value, CALLERS)
            lines.append(f"{address}, {candidates} candidates, {CALLERS} callers: {report}")
            client.close()
    return lines


def queue(servers: int, load: float, arrivals: int, poisson: bool) -> np.ndarray:
    """Latencies `[arrivals]`, in service times, of a server whose every request takes the same.

    What no model can go below: M/D/n where `poisson`, else D/D/n.

    Args:
      load: arrivals over what the servers can answer.
    """
    gaps = np.ones(arrivals)
    if poisson:
        gaps = np.random.default_rng(0).exponential(size=arrivals)
    free = np.zeros(servers)
    latency = np.empty(arrivals)
    for i, arrival in enumerate(np.cumsum(gaps) / (load * servers)):
        first = np.argmin(free)
        free[first] = max(arrival, free[first]) + 1.0
        latency[i] = free[first] - arrival
    return latency


def _half_load(
    session: native.Session, calls: list[native.Call], rate: float, name: str, poisson: bool
) -> dict[str, float]:
    """Medians over the turns: a turn in which something else took the machine does not count."""
    turns = [
        session.benchmark(
            calls, _REQUESTS.value, _THREADS.value, 10, rate=rate, poisson=poisson, seed=seed
        )
        for seed in range(_TURNS.value)
    ]
    return {
        f"half_{name}_p50_ms": statistics.median(t.percentile(50) for t in turns),
        f"half_{name}_p99_ms": statistics.median(t.percentile(99) for t in turns),
        f"half_{name}_p99_over_p50": statistics.median(
            t.percentile(99) / t.percentile(50) for t in turns
        ),
    }


def _turn(
    session: native.Session, grouped: list[native.Call], rows: list[native.Call], count: int
) -> dict[str, float]:
    few = max(count // 10, 4)
    alone, row_alone = session.benchmark(grouped, count), session.benchmark(rows, few)
    threads = _THREADS.value
    loaded, row_loaded = (
        session.benchmark(grouped, count, threads),
        session.benchmark(rows, few, threads),
    )
    return {
        "p50_ms": alone.percentile(50),
        "p99_ms": alone.percentile(99),
        "rows_p50_ms": row_alone.percentile(50),
        "throughput": loaded.throughput,
        "rows_throughput": row_loaded.throughput,
        "p50_ratio": row_alone.percentile(50) / alone.percentile(50),
        "throughput_ratio": loaded.throughput / row_loaded.throughput,
    }


def _check_equal(session: native.Session, grouped: native.Call, rows: native.Call) -> None:
    """Both forms give the same scores, or the comparison means nothing."""
    from export import signatures

    together = session.run(*grouped)[signatures.CTR][0]
    apart = session.run(*rows)[signatures.CTR][:, 0]
    np.testing.assert_allclose(together, apart, atol=1e-6)


def main(_: list[str]) -> None:
    """Exports, measures and prints."""
    quiet.import_tensorflow()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        run_dir = (
            pathlib.Path(_RUN_DIR.value)
            if _RUN_DIR.value
            else write_run(folder, _ITEMS.value, _HISTORY.value)
        )
        version, _ = export(run_dir, folder / "servable", ExportOptions(tables=_TABLES.value))
        asked = make_requests(version, _CANDIDATES.value, _HISTORY.value)
        found = measure(version, asked) | measure_batching(version, _HISTORY.value)
        of_servers = measure_servers(version, _HISTORY.value, _SERVERS.value)
    print(f"{_CANDIDATES.value} candidates, histories of {_HISTORY.value}, {_TABLES.value} tables")
    print(f"one request          p50 {found['p50_ms']:8.2f} ms  p99 {found['p99_ms']:8.2f} ms")
    print(f"one row a candidate  p50 {found['rows_p50_ms']:8.2f} ms")
    print(
        f"throughput, {_THREADS.value} in flight: {found['throughput']:.1f} requests/s, one row a "
        f"candidate {found['rows_throughput']:.2f}"
    )
    print(
        f"times as fast: p50 {found['p50_ratio']:.1f}, throughput {found['throughput_ratio']:.1f}"
    )
    for name, poisson in (("even", False), ("poisson", True)):
        ideal = np.percentile(queue(_THREADS.value, 0.5, QUEUED, poisson), [50, 99])
        print(
            f"at half load, {name} arrivals: p50 {found[f'half_{name}_p50_ms']:.2f} ms, p99 "
            f"{found[f'half_{name}_p99_ms']:.2f} ms, ratio "
            f"{found[f'half_{name}_p99_over_p50']:.2f} (of constant service times "
            f"{ideal[1] / ideal[0]:.2f})"
        )
    for candidates in BATCHED:
        one, batched = f"unbatched_{candidates}", f"batched_{candidates}"
        print(
            f"{candidates} candidates, {_THREADS.value} calls in flight: {found[one]:.1f} "
            f"requests/s, p50 {found[f'{one}_p50_ms']:.2f} ms; merged by {BATCH}: "
            f"{found[batched]:.1f}, p50 {found[f'{batched}_p50_ms']:.2f} ms, "
            f"{found[f'batching_gain_{candidates}']:.2f} times"
        )
    for line in of_servers:
        print(line)
    print(f"load average of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if _OUTPUT.value:
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main, FLAGS)
