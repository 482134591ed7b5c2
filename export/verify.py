"""Shows that an exported version answers as the trained model did, without Python.

    python -m export.verify --servable=SERVABLE/1

Loads the version through TensorFlow's C++ loader in a fresh process (export/native.py),
holds its files against the checksums of the export, replays its golden requests on every
signature and its warm-up file, and prints one scored request. The run directory is not needed.
"""

import dataclasses
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from export import bill_of_materials, calibration, golden, native, requests, version_files
from sitn_tf import cli, quiet, schema
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
_SERVABLE = flags.DEFINE_string(
    "servable", None, "A version, SERVABLE/1, or the newest of SERVABLE.", flag_values=FLAGS
)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Score the golden requests with this run's model again.", flag_values=FLAGS
)

FAILED = 1


@dataclasses.dataclass(frozen=True)
class Report:
    """How a version answered, through the C++ loader.

    Attributes:
      differences: of its golden requests' scores, by what they were compared with.
      warmup: its warm-up requests, all answered; None where it has no such file.
      example: one scored request, in words.
    """

    differences: dict[str, golden.Difference]
    warmup: int | None
    example: str

    @property
    def passes(self) -> bool:
        return all(difference.passes for difference in self.differences.values())

    def __str__(self) -> str:
        lines = [f"{name}: {difference}" for name, difference in self.differences.items()]
        answered = f"warm-up: {self.warmup} requests answered"
        return "\n".join(
            [*lines, "no warm-up file" if self.warmup is None else answered, self.example]
        )


def verify(
    version: str | pathlib.Path, run_dir: str | pathlib.Path | None = None
) -> tuple[pathlib.Path, Report]:
    """Puts a version's requests to it; returns the version that was asked, and how it answered.

    Args:
      version: its directory, or that of several versions for the newest.
      run_dir: of a run whose model scores the golden requests again.

    Raises:
      InputError: no such version, or it is damaged: a file of it is not as exported, or it does
        not answer.
    """
    from export import warmup  # loads TensorFlow

    version = resolve(pathlib.Path(version))
    metadata = version_files.read_metadata(version)
    version_files.check_whole(version)
    with native.Session(version) as session:
        differences = replay_goldens(session, version)
        has_warmup = (version / warmup.FILE).is_file()
        answered = replay_warmup(session, version) if has_warmup else None
        example = scored_request(session, version, metadata)
    if run_dir is not None:
        again = difference_from_run(pathlib.Path(run_dir), version)
        differences[f"golden requests against {run_dir}"] = again
    return version, Report(differences, answered, example)


def check(version: pathlib.Path) -> None:
    """Loads a version's files with the C++ loader and puts its golden and warm-up requests.

    Raises:
      InputError: they do not load, or do not answer as at export.
    """
    with native.Session(version) as session:
        for name, difference in replay_goldens(session, version).items():
            if not difference.passes:
                raise InputError(f"{version} does not answer as at export: {name}: {difference}")
        replay_warmup(session, version)


def resolve(path: pathlib.Path) -> pathlib.Path:
    """A version directory; of a directory of versions, the newest."""
    present = version_files.present(path)
    return path / str(present[-1]) if present else path


def replay_goldens(session: native.Session, version: pathlib.Path) -> dict[str, golden.Difference]:
    """Puts the golden requests to every signature.

    Returns:
      Largest absolute differences, by what was compared.

    Raises:
      InputError: the golden requests cannot be read, or the model fails one.
    """
    try:
        return _replayed(session, version)
    except (native.NativeError, native.LoaderDiedError, KeyError) as error:
        # A model without its variables loads, and fails its first request.
        raise InputError(
            f"{version} is damaged, it fails a golden request "
            f"({' '.join(str(error).split())[:200]})",
            "export it again with python -m export.export_model --force",
        ) from error


def _replayed(session: native.Session, version: pathlib.Path) -> dict[str, golden.Difference]:
    goldens = golden.read(version)
    asked = [g.request for g in goldens]
    vocabularies = requests.read_vocabularies(version / "assets")
    # Quantised tables answer as the graph did at export, not as the float32 model.
    exact = version_files.read_metadata(version)["options"]["tables"] == "float32"
    what = "the trained model" if exact else "the quantised graph at export"
    expected = [g.trained if exact else g.exported for g in goldens]

    def direct(batch: Sequence[requests.Request]) -> requests.Inputs:
        return session.run(requests.SCORE, requests.score_inputs(batch))

    def encoded(batch: Sequence[requests.Request]) -> requests.Inputs:
        user = session.run(requests.ENCODE_USER, requests.user_inputs(batch))
        shown = requests.candidate_inputs([r.candidates for r in batch])
        return session.run(requests.SCORE_ENCODED, {**user, **shown})

    def by_ids(batch: Sequence[requests.Request]) -> requests.Inputs:
        examples = requests.example_inputs(batch, vocabularies)
        return session.run(requests.SERVING_DEFAULT, examples)

    by_score, by_encoded = golden.served(direct, asked), golden.served(encoded, asked)
    return {
        f"score, {len(asked)} requests against {what}": golden.compare(by_score, expected),
        "serving_default against the same": golden.compare(golden.served(by_ids, asked), expected),
        "encode_user + score_encoded against the same": golden.compare(by_encoded, expected),
        "encode_user + score_encoded against score": golden.compare(
            by_encoded, by_score[1] or [_log_odds(row) for row in by_score[0]]
        ),
    }


def _log_odds(ctr: np.ndarray) -> np.ndarray:
    """What `calibration.sigmoid` gives these probabilities of; 0 and 1 too."""
    with np.errstate(divide="ignore"):
        return 2.0 * np.arctanh(2.0 * ctr.astype(np.float64) - 1.0)


def replay_warmup(session: native.Session, version: pathlib.Path) -> int:
    """Sends the warm-up file through the C++ loader; returns its number of records.

    Raises:
      InputError: the file is damaged, or one of its requests fails: TF Serving would
        refuse the version.
    """
    import tensorflow as tf

    from export import warmup  # loads TensorFlow

    count = 0
    try:
        for signature, inputs, outputs in warmup.read_filtered(version):
            session.run(signature, inputs, outputs)
            count += 1
    except (native.NativeError, native.LoaderDiedError, KeyError, tf.errors.OpError) as error:
        raise InputError(
            f"warm-up request {count} of {version} fails ({' '.join(str(error).split())[:200]})"
            ": TF Serving would refuse this version, export it again"
        ) from error
    return count


def difference_from_run(run_dir: pathlib.Path, version: pathlib.Path) -> golden.Difference:
    """Scores the golden requests with a run's model again, in Python."""
    from sitn_tf import trained_models

    goldens = golden.read(version)
    logits = golden.trained_logits(
        trained_models.load_scorer(run_dir),
        [g.request for g in goldens],
        requests.read_vocabularies(run_dir / "vocabularies"),
        calibration.Calibration(**version_files.read_metadata(version)["calibration"]),
    )
    scores = ([calibration.sigmoid(row) for row in logits], logits)
    return golden.compare(scores, [g.trained for g in goldens])


def scored_request(session: native.Session, version: pathlib.Path, metadata: dict[str, Any]) -> str:
    """One golden request with its probabilities, best first, in words."""
    example = metadata["example"]
    asked = golden.read(version)[example["request"]].request
    answer = session.run(requests.SCORE, requests.score_inputs([asked]))
    titles = example["titles"]

    def name(domain: str, item: str) -> str:
        title = titles.get(domain, {}).get(item)
        return f"{item}  {title}" if title else item

    lines = ["one scored request:"]
    lines += [f"  source clicks  {name(schema.SOURCE, i)}" for i in asked.source_history]
    lines += [f"  target clicks  {name(schema.TARGET, i)}" for i in asked.target_history]
    scored = zip(answer[requests.CTR][0].tolist(), asked.candidates, strict=True)
    for ctr, item in sorted(scored, reverse=True):
        lines.append(f"  ctr {ctr:<9.3g}  {name(schema.TARGET, item)}")
    return "\n".join(lines)


def main(_: list[str]) -> int:
    """Prints how the version answered; the exit status says whether as at export."""
    if _SERVABLE.value is None:
        raise InputError("--servable is missing: name a version, such as SERVABLE/1")
    version = resolve(pathlib.Path(_SERVABLE.value))
    version_files.read_metadata(version)  # before TensorFlow loads
    quiet.import_tensorflow()
    version, report = verify(_SERVABLE.value, _RUN_DIR.value)
    print(report)
    if not report.passes:
        print(f"error: {version} does not answer as it did at export: export it again")
        return FAILED
    image = f"{bill_of_materials.SERVER_IMAGE}:{bill_of_materials.SERVER_TAG}"
    volume = shlex.quote(f"{version.parent.resolve()}:/models/sitn")
    print(
        f"next: docker run -p 8500:8500 -p 8501:8501 -v {volume} -e MODEL_NAME=sitn {image} "
        "--max_num_load_retries=0 --tensorflow_intra_op_parallelism=1 --grpc_max_threads=64"
    )
    return 0


if __name__ == "__main__":
    cli.run(main, FLAGS)
