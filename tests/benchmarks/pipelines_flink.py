"""The data set job on a Flink cluster of this machine, beside Beam's local runner.

    python -m tests.benchmarks.pipelines_flink --engines=.engines --sizes='[10000]'

Both read the same synthetic logs, one after the other. The cluster is a job manager, two task
managers of one slot each and Beam's job server; the task managers' SDK workers come from one
pool in an environment of its own, so what is compared is the local runner with two processes. Of a
small log most is what any job on the cluster costs. Programs that are missing are brought as
`make test-engines` brings them; where they can't be had, the reason is printed and nothing is
measured.
"""

import argparse
import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator

from sitn_tf import schema
from tests.benchmarks import pipelines, process_trees
from tests.pipelines import processes
from tests.pipelines.engines import flink, programs, shared_worker_pool

LOCAL = {
    "local, one process": (),
    "local, two processes": (
        "--direct_running_mode=multi_processing", "--direct_num_workers=2",
    ),
}  # fmt: skip
FLINK = "Flink, two task managers"


@contextlib.contextmanager
def engine(folder: pathlib.Path) -> Iterator[tuple[list[str], list[int]]]:
    """The flags that send a job to a cluster, and the processes that all of its are below."""
    server, jars = programs.job_server(folder), programs.flink(folder)
    with contextlib.ExitStack() as stack:
        home = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        processes.project_environment(home / "environment")
        pool_of_all = [shared_worker_pool.__file__]
        pool = stack.enter_context(processes.worker_pool(home / "environment", home, pool_of_all))
        cluster = stack.enter_context(flink.cluster(jars))
        told = [*cluster.job_flags(server.jars), *pool.flags()]
        yield told, [pool.process.pid, *(each.pid for each in cluster.processes)]


def compare(lines: int, told: list[str], roots: list[int]) -> None:
    """Prints a row of each program; exits with an error where the records differ."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        pipelines.write_logs(folder, lines)
        hashes, rates = set(), {}
        for title, flags in {**LOCAL, FLINK: told}.items():
            out = folder / "out"
            began = sum(map(process_trees.cpu_seconds, roots))
            found = pipelines.measure(pipelines.job_command(folder, out, *flags))
            cpu = found["cpu"] + sum(map(process_trees.cpu_seconds, roots)) - began
            hashes.add(schema.read_manifest(out).dataset_hash)
            rates[title] = lines / found["seconds"], lines / cpu
            print(
                f"{title:26}{lines:>12,}{found['seconds']:>10.1f}{cpu:>10.1f}"
                f"{rates[title][0]:>12,.0f}{rates[title][1]:>13,.0f}",
                flush=True,
            )
        if len(hashes) != 1:
            raise SystemExit(f"the records differ: {sorted(hashes)}")
        for title in LOCAL:
            a_second, a_cpu_second = (
                on_flink / here for on_flink, here in zip(rates[FLINK], rates[title], strict=True)
            )
            print(
                f"Flink's lines are {a_second:.2f} a second, {a_cpu_second:.2f} a CPU second "
                f"of 1 by {title}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=pathlib.Path, default=pathlib.Path(".engines"))
    parser.add_argument("--sizes", type=json.loads, default=[10_000])
    arguments = parser.parse_args()
    folder = arguments.engines.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with engine(folder) as (told, roots):
            print(
                f"{'program':26}{'lines':>12}{'seconds':>10}{'CPU s':>10}{'lines/s':>12}"
                f"{'lines/CPU s':>13}"
            )
            for lines in arguments.sizes:
                compare(lines, told, roots)
    except programs.MissingProgramError as error:
        print(f"Flink was not measured: {error}")


if __name__ == "__main__":
    main()
