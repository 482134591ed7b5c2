"""Mixed requests on a servable whose versions are swapped meanwhile: no error, no growth, exact.

The client is export/client.py's over gRPC; the server is the double that speaks TF Serving's
protos with a version's files behind TensorFlow's C++ loader, in a process of its own. Every
version is a process of its own in it, so what TF Serving itself would keep of a version that went
is not seen here.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import numpy as np

from export import golden, requests, version_files
from export.calibration import sigmoid
from export.serving_client import EncodedUser, PredictCall, ServerError
from export.transports import GrpcClient
from tests.benchmarks.serving_memory import resident
from tests.drills.outcome import Outcome
from tests.drills.serving_process import serving

THREADS = 4
SECONDS = 600.0
SHORT_SECONDS = 8.0
SWAPS = 60
"""Changes of the directory in the whole time; the double follows within a fifth of a second."""
SHORT_SWAPS = 4
DEADLINE = 60.0
"""Seconds of a call: a machine that is busy is slow, and slow is no error."""
GOLDENS = 256
USERS = 32
"""Encoded ahead by each thread, and scored again whatever version is served by then."""

LEAK_BYTES = 100
"""A request: what one small object that is never freed would cost, such as an id of ten letters
(59 bytes in CPython) with its place in a container."""
WARM_SECONDS = 60.0
"""Less than this shows how memory fills, not whether it grows."""
NOISE_MB = 16.0
"""By which the resident set goes up and down without a leak: arenas of an allocator, threads'
stacks, pages of programs that are read for the first time."""


@dataclasses.dataclass
class Load:
    """What came of the requests.

    Attributes:
      answered: by kind.
      wrong: requests that failed or were answered otherwise than by the version that answered.
      swaps: changes of the directory of versions.
      answering: versions that gave an answer.
      memory: MB of `client`, `server` and `models` together, by seconds since the start.
    """

    answered: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)
    swaps: int = 0
    answering: set[int] = dataclasses.field(default_factory=set)
    memory: list[tuple[float, dict[str, float]]] = dataclasses.field(default_factory=list)


class TellingClient(GrpcClient):
    """Remembers for each thread the version that answered its last call."""

    def __init__(self, address: str) -> None:
        super().__init__(address, deadline=DEADLINE)
        self._answered = threading.local()

    @property
    def answering(self) -> int:
        return self._answered.version

    def _predict_once(self, call: PredictCall, timeout: float):
        answer = super()._predict_once(call, timeout)
        self._answered.version = answer[1]
        return answer


class Caller:
    """One thread's requests, of every kind, from a seed.

    Args:
      expected: version % 2 → the golden requests of the model that such versions hold.
    """

    def __init__(
        self, client: TellingClient, expected: Sequence[Sequence[golden.Golden]], seed: int
    ) -> None:
        self.client, self.expected = client, expected
        self.rng = np.random.default_rng(seed)
        self.ahead: list[tuple[int, EncodedUser]] = []
        self.kinds: dict[str, Callable[[], int]] = {
            "score": self.score,
            "score many": self.score_many,
            "ctr alone": self.ctr_alone,
            "encode_user": self.encode_user,
            "score_encoded": self.score_encoded,
            "refused": self.refused,
        }

    def call(self) -> tuple[str, int]:
        """Sends one request; the kind, and the version that answered.

        Raises:
          AssertionError: the answer is not that version's.
          ServerError: there was none.
        """
        kind = str(self.rng.choice(list(self.kinds)))
        return kind, self.kinds[kind]()

    def score(self) -> int:
        which = self._some(1)
        return self._check(which, self.client.score(self._requests(which)))

    def score_many(self) -> int:
        which = self._some(int(self.rng.integers(2, 65)))
        return self._check(which, self.client.score(self._requests(which)))

    def ctr_alone(self) -> int:
        asked = self._requests(which := self._some(3))
        inputs = requests.score_inputs(asked)
        answer = self.client.predict(requests.SCORE, inputs, outputs=(requests.CTR,))
        assert list(answer) == [requests.CTR], f"also {sorted(answer)}"
        return self._check(which, requests.own_scores(answer[requests.CTR], asked))

    def encode_user(self) -> int:
        which = self._some(4)
        users = self.client.encode_user(self._requests(which))
        self.ahead = [*self.ahead, *zip(which, users, strict=True)][-USERS:]
        return self.client.answering

    def score_encoded(self) -> int:
        """Users encoded ahead, by whatever versions."""
        if not self.ahead:
            return self.encode_user()
        chosen = [self.ahead[i] for i in self.rng.integers(len(self.ahead), size=3)]
        users = [user for _, user in chosen]
        shown = [user.request.candidates for user in users]
        scores = self.client.score_encoded(users, shown)
        for (row, user), own in zip(chosen, scores, strict=True):
            self._check([row], [own], user.encoding.version)
        return self.client.answering

    def refused(self) -> int:
        """A history said to be longer than it is: refused, and no harm to those beside it."""
        inputs = requests.score_inputs(self._requests(self._some(2)))
        lengths = inputs[requests.length_of(requests.TARGET_HISTORY)]
        inputs[requests.length_of(requests.TARGET_HISTORY)] = lengths + 10_000
        try:
            self.client.predict(requests.SCORE, inputs)
        except ServerError as error:
            if error.refused:
                return 0
            raise
        raise AssertionError("answered, though a history is shorter than it says")

    def _some(self, size: int) -> list[int]:
        return self.rng.integers(len(self.expected[0]), size=size).tolist()

    def _requests(self, which: Sequence[int]) -> list[requests.Request]:
        return [self.expected[0][i].request for i in which]

    def _check(
        self, which: Sequence[int], scores: Sequence[np.ndarray], version: int | None = None
    ) -> int:
        version = self.client.answering if version is None else version
        for row, found in zip(which, scores, strict=True):
            wanted = sigmoid(np.array(self.expected[version % 2][row].exported))
            off = np.abs(found - wanted).max()
            assert off <= golden.CTR_TOLERANCE, f"request {row}, version {version}: off by {off}"
        return version


def change(servable: pathlib.Path, models: Sequence[pathlib.Path], turn: int) -> None:
    """One change of a servable, under its lock: new version, rollback, restore, prune, in turn."""
    with version_files.locked(servable):
        withdrawn = version_files.withdrawn(servable)
        if turn % 4 in (0, 1):
            # Odd versions hold the one model and even ones the other; none is made twice.
            number = version_files.next_version(servable)
            with version_files.unfinished_version(servable) as made:
                shutil.copytree(models[number % 2], made, dirs_exist_ok=True)
                version_files.publish(made, servable, number)
        elif turn % 4 == 2:
            version_files.rollback(servable)
        else:
            version_files.restore(servable, withdrawn[-1])
            version_files.retain(servable, 3)


def load(
    servable: pathlib.Path, models: Sequence[pathlib.Path], seconds: float, swaps: int = SWAPS
) -> Load:
    """Sends mixed requests for a while, swaps versions and samples memory meanwhile.

    Args:
      servable: is made; versions are copies of `models` in turn.
      models: two versions with other weights, whose golden requests begin alike.
      swaps: changes of the versions meanwhile.
    """
    done = Load()
    for number in (1, 2):
        shutil.copytree(models[number % 2], servable / str(number))
    expected = [golden.read(model) for model in models]
    common = min(map(len, expected))
    expected = [goldens[:common] for goldens in expected]
    assert [g.request for g in expected[0]] == [g.request for g in expected[1]]
    over, lock = threading.Event(), threading.Lock()
    with serving(servable) as server, contextlib.closing(TellingClient(server.address)) as client:

        def work(seed: int) -> None:
            caller = Caller(client, expected, seed)
            while not over.is_set():
                try:
                    kind, version = caller.call()
                except (ServerError, AssertionError) as error:
                    with lock:
                        done.wrong.append(f"{type(error).__name__}: {error}")
                else:
                    with lock:
                        done.answered[kind] += 1
                        done.answering |= {version} - {0}

        began = time.monotonic()
        with futures.ThreadPoolExecutor(THREADS) as pool:
            running = [pool.submit(work, seed) for seed in range(THREADS)]
            try:
                while (now := time.monotonic() - began) < seconds:
                    _sample(done, now, server)
                    if now > (done.swaps + 1) * seconds / (swaps + 1):
                        change(servable, models, done.swaps)
                        done.swaps += 1
                    over.wait(0.25)
            finally:
                over.set()
            for one in running:
                one.result()
    return done


def _sample(done: Load, now: float, server) -> None:
    memory = server.memory()
    sizes = {
        "client": resident(os.getpid())[0],
        "server": memory.front,
        "models": sum(memory.models.values()) / max(len(memory.models), 1),
    }
    done.memory.append((now, sizes))


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """MB that a straight line through the samples rises, the first third left out as warm-up.

    Args:
      samples: seconds and MB.
    """
    first, last = samples[0][0], samples[-1][0]
    kept = np.array([(t, mb) for t, mb in samples if t >= first + (last - first) / 3])
    slope = np.polyfit(kept[:, 0], kept[:, 1], 1)[0]
    return float(slope * (kept[-1, 0] - kept[0, 0]))


def allowed(answered: int) -> float:
    """MB by which a process may seem to grow over so many requests."""
    return max(NOISE_MB, answered * LEAK_BYTES / 2**20)


def outcomes(folder: pathlib.Path, short: bool) -> Iterator[Outcome]:
    """Ten minutes of load, or some seconds."""
    from export.exporting import export
    from export.options import ExportOptions
    from tests.export.small_run import write_small_run

    models = []
    for seed in (0, 11):
        dataset = folder / "run0" / "dataset" if seed else None
        run_dir = write_small_run(folder / f"run{seed}", seed=seed, dataset=dataset)
        made, _ = export(run_dir, folder / f"model{seed}", ExportOptions(goldens=GOLDENS))
        models.append(made)
    chosen = (SHORT_SECONDS, SHORT_SWAPS) if short else (SECONDS, SWAPS)
    yield from told(load(folder / "servable", models, *chosen))


def told(done: Load) -> Iterator[Outcome]:
    """The rows: requests, and the memory of each side."""
    again = "python -m tests.drills --only=load"
    answered = sum(done.answered.values())
    seconds = done.memory[-1][0]
    yield Outcome(
        f"mixed requests for {seconds:.0f} s, {done.swaps} changes of versions, "
        f"{len(done.answering)} versions answered",
        answered + len(done.wrong),
        tuple(f"{wrong}: {again}" for wrong in done.wrong),
    )
    for side in done.memory[0][1]:
        if seconds < WARM_SECONDS:
            skipped = f"{seconds:.0f} s are too short to tell growth from warming up"
            yield Outcome(f"memory of the {side} under load", 0, skipped=skipped)
            continue
        samples = [(now, sizes[side]) for now, sizes in done.memory]
        rise, bound = growth(samples), allowed(answered * 2 // 3)
        sizes = f"{samples[0][1]:.0f} to {samples[-1][1]:.0f} MB"
        lost = f"grew by {rise:.1f} MB, more than {bound:.1f}: {again}"
        yield Outcome(
            f"memory of the {side} under load, {sizes}, a line through it rises by {rise:.1f} MB",
            1,
            (lost,) if rise > bound else (),
        )
