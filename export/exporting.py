"""A finished stage-2 run → a version of a servable, whole or not at all."""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from export import (
    bill_of_materials,
    golden,
    measure,
    metadata,
    reliability,
    requests,
    signatures,
    verify,
    version_files,
    warmup,
)
from export import calibration as calibrations
from export.calibration import Calibration
from export.item_vectors import fold
from export.options import ExportOptions
from sitn_tf import runs, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import metrics
from sitn_tf.trained_models import Run, load_scorer

Answer = Callable[[Sequence[requests.Request]], dict[str, np.ndarray]]


def export(
    run_dir: str | pathlib.Path,
    servable: str | pathlib.Path,
    options: ExportOptions | None = None,
    version: int | None = None,
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes a version; returns its directory and its metadata.

    If no `version` is named and the newest one is the same already, nothing is written and
    its directory is returned.

    Raises:
      InputError: no finished stage-2 run, an existing version, a data set that a fit needs
        and that is not there, scores that drift too far from the newest version's, or somebody
        else who changes the servable.
    """
    run_dir, servable = pathlib.Path(run_dir), pathlib.Path(servable)
    options = options or ExportOptions()
    if not run_dir.is_dir():
        raise InputError(
            f"run_dir={run_dir} is not a directory",
            "train a run with python -m sitn_tf.train --stage=2",
        )
    with version_files.locked(servable):
        return _export(run_dir, servable, options, version)


def _export(
    run_dir: pathlib.Path, servable: pathlib.Path, options: ExportOptions, version: int | None
) -> tuple[pathlib.Path, dict[str, Any]]:
    if version is not None:
        version_files.check_free(servable, version)
    run = load_scorer(run_dir)
    newest = _newest_goldens(servable, options)
    data_dir = _data_set(run, options)
    vocabulary_files = {
        domain: run_dir / schema.vocabulary_path(domain, schema.ITEM) for domain in schema.DOMAINS
    }
    vocabularies = requests.read_vocabularies(run_dir / "vocabularies")
    for domain, vocabulary in vocabularies.items():
        _check_vocabulary(run, domain, vocabulary_files[domain], len(vocabulary))
    calibration = _fit(run, data_dir, options)
    judge = _test_requests(run.manifest, data_dir)
    graph = signatures.Servable(
        run.scorer,
        fold(run.scorer),
        vocabulary_files,
        signatures.ServingOptions(
            max_history=run.manifest.max_history,
            max_candidates=options.max_candidates,
            calibration=calibration,
            tables=options.tables,
            outputs=options.outputs,
        ),
    )
    read = (*run.scorer.click_inputs, *run.scorer.request_inputs)
    context = [feature.name for feature in read]
    with version_files.unfinished_version(servable) as made:
        traced = graph.save(made)

        def answer(batch: Sequence[requests.Request]) -> dict[str, np.ndarray]:
            # The newest version's golden requests may be of a model with other inputs.
            inputs = requests.score_inputs(batch, context)
            return warmup.run_traced(traced, requests.SCORE, inputs)

        asked = golden.make_requests(
            run.tables, run.manifest.max_history, options.goldens, context=context
        )
        goldens, difference = _score_goldens(run, asked, vocabularies, calibration, answer)
        golden.write(made, goldens)
        warmup.write(made, warmup.calls(asked, vocabularies, traced))
        described = _describe(run, vocabularies, options, goldens) | {
            "encoder": graph.fingerprint,
            "calibration": calibration.to_dict(),
            "signatures": metadata.describe_signatures(traced, options.outputs),
            "golden": {
                "requests": len(goldens),
                "max_difference": dataclasses.asdict(difference),
            },
            "drift": _drift(answer, newest, options),
            "measured": _measure(run, traced, judge, calibration, options, made),
            "not_measured": judge.message if isinstance(judge, InputError) else None,
        }
        whole_files.write_json(made / version_files.METADATA_FILE, described)
        if version is None and not options.force:
            twin = same_as_newest(made, servable)
            if twin is not None:
                return twin, described
        bill_of_materials.write(made)
        # What the files answer, not what this process does: TF Serving has the files only.
        verify.check(made)
        version_files.write_checksums(made)
        return version_files.publish(made, servable, version), described


def _fit(run: Run, data_dir: pathlib.Path | InputError, options: ExportOptions) -> Calibration:
    shift = 0.0
    if options.undo_sampling:
        try:
            shift = calibrations.shift_of(run.manifest.negatives)
        except ValueError as error:
            raise InputError(f"{run.run_dir}: {error}", "give undo_sampling=False") from error
    if options.calibrate == "none":
        return Calibration(shift=shift)
    if isinstance(data_dir, InputError):
        raise InputError(
            f"calibrate={options.calibrate} needs the data set of the run: {data_dir.message}",
            "give data_dir=DATASET",
        )
    scored = measure.trained(run.scorer, data_dir, schema.VALIDATION)
    return calibrations.fit(options.calibrate, scored.logit, scored.label, shift)


def _score_goldens(
    run: Run,
    asked: Sequence[requests.Request],
    vocabularies: Mapping[str, requests.Vocabulary],
    calibration: Calibration,
    answer: Answer,
) -> tuple[list[golden.Golden], golden.Difference]:
    """Golden requests with both scores, and how far the serving graph's are off."""
    trained = golden.trained_logits(run, asked, vocabularies, calibration)
    exported = golden.served(answer, asked)
    goldens = [
        golden.Golden(request, tuple(a.tolist()), tuple(b.tolist()))
        for request, a, b in zip(asked, trained, exported[1], strict=True)
    ]
    return goldens, golden.compare(exported, [g.trained for g in goldens])


def _drift(
    answer: Answer, newest: tuple[int, list[golden.Golden]] | None, options: ExportOptions
) -> dict[str, Any] | None:
    """How far scores are from the newest version's, on its own golden requests."""
    if newest is None:
        return None
    version, old = newest
    _, logits = golden.served(answer, [g.request for g in old])
    mean = golden.mean_shift(logits, [g.exported for g in old])
    if not options.allow_drift and not mean <= options.max_drift:
        raise InputError(
            f"log-odds drift by {mean:.3f} on average from version {version} on its golden "
            f"requests, over max_drift={options.max_drift}",
            "look at the run, then give allow_drift=True",
        )
    return {"version": version, "requests": len(old), "mean": mean}


def _test_requests(
    manifest: schema.Manifest, data_dir: pathlib.Path | InputError
) -> pathlib.Path | InputError:
    """The data set with a test split to measure on, or why an export has to do without."""
    if isinstance(data_dir, InputError):
        return data_dir
    if manifest.records.get(schema.STAGE2, {}).get(schema.TEST) == 0:
        return InputError(f"{data_dir} has no requests in its test split")
    return data_dir


def _measure(
    run: Run,
    traced: Mapping[str, Any],
    data_dir: pathlib.Path | InputError,
    calibration: Calibration,
    options: ExportOptions,
    version: pathlib.Path,
) -> dict[str, Any] | None:
    """AUC and calibration on the test split, of the trained model and of the graph."""
    if isinstance(data_dir, InputError):
        return None
    trained = measure.trained(run.scorer, data_dir, schema.TEST)
    served = measure.served(traced, data_dir, schema.TEST)
    rate = float(np.exp(calibration.shift))
    # A kept negative stands for 1/rate of them in the world that ctr speaks of.
    weights = np.where(trained.label > 0, 1.0, 1.0 / rate)
    curves = {
        name: metrics.calibration_curve(scored.label, calibrations.sigmoid(scored.logit), weights)
        for name, scored in (("before", trained), ("after", served))
    }
    diagram = reliability.svg(curves, f"test split, {options.calibrate}")
    (version / "assets.extra" / "reliability.svg").write_text(diagram)
    return {
        "split": schema.TEST,
        "requests": len(np.unique(served.request)),
        "auc_trained": metrics.auc(trained.label, trained.logit),
        "auc_served": metrics.auc(served.label, served.logit),
        "click_rate": float(np.average(trained.label > 0, weights=weights)),
        "calibration_error_before": curves["before"].error,
        "calibration_error_after": curves["after"].error,
    }


def _describe(
    run: Run,
    vocabularies: Mapping[str, requests.Vocabulary],
    options: ExportOptions,
    goldens: Sequence[golden.Golden],
) -> dict[str, Any]:
    """What does not depend on the serving graph."""
    shown = metadata.readable(goldens)
    return {
        "format": version_files.FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": {
            "run_dir": str(run.run_dir),
            "init": run.info.init,
            "dataset_hash": run.manifest.dataset_hash,
            "versions": run.info.versions,
            "model": run.config.used("seed", "contrast", "stage1", "stage2"),
        },
        "metrics": run.metrics,
        "schema_hash": run.manifest.schema_hash,
        "vocabularies": {
            domain: {
                "items": len(vocabulary),
                "sha256": whole_files.sha256(
                    run.run_dir / schema.vocabulary_path(domain, schema.ITEM)
                ),
            }
            for domain, vocabulary in vocabularies.items()
        },
        "options": {
            "tables": options.tables,
            "max_candidates": options.max_candidates,
            "outputs": options.outputs,
            "max_history": run.manifest.max_history,
        },
        "example": {
            "request": shown,
            "titles": metadata.titles_of(goldens[shown].request, run.tables),
        },
        "versions": runs.versions(),
    }


def _newest_goldens(
    servable: pathlib.Path, options: ExportOptions
) -> tuple[int, list[golden.Golden]] | None:
    """The newest version and its golden requests; None where there is none to be held to."""
    present = version_files.present(servable)
    if not present:
        return None
    newest = servable / str(present[-1])
    try:
        return present[-1], golden.read(newest)
    except InputError as error:
        if options.allow_drift:
            return None
        raise InputError(
            error.message,
            f"withdraw it with python -m export.versions --servable={servable} --rollback, or "
            "give allow_drift=True",
        ) from error


def same_as_newest(made: pathlib.Path, servable: pathlib.Path) -> pathlib.Path | None:
    """The newest version, if it has the weights, settings and scores of the one just made."""
    present = version_files.present(servable)
    if not present:
        return None
    newest = servable / str(present[-1])
    told = []
    for version in (made, newest):
        try:
            described = version_files.read_metadata(version)
            scores = (version / golden.FILE).read_bytes()
        except (InputError, OSError):
            return None  # a damaged version is like no other
        told.append(({**described, "created": None, "drift": None}, scores))
    same = told[0] == told[1] and version_files.flaw(newest) is None
    return newest if same else None


def _check_vocabulary(run: Run, domain: str, path: pathlib.Path, tokens: int) -> None:
    """Raises InputError where lookups would give ids that mean other items to the model."""
    items = run.tables[domain].size - schema.FIRST_ID
    if tokens != items:
        raise InputError(
            f"{path} has {tokens} items, the item table {items}",
            "the run directory is damaged, train it again",
        )
    known = run.manifest.vocabularies.get(schema.vocabulary_name(domain, schema.ITEM), {})
    expected = known.get("sha256")
    if expected and whole_files.sha256(path) != expected:
        raise InputError(
            f"{path} is not the vocabulary that the run was trained with (its sha256 is not "
            "the manifest's)",
            "copy it from the data set again",
        )


def _data_set(run: Run, options: ExportOptions) -> pathlib.Path | InputError:
    """The data set of the run, or why an export has to do without: it is gone, say.

    Raises:
      InputError: its manifest is damaged, or gone from among its files.
    """
    if options.data_dir is not None:
        runs.read_its_manifest(run.run_dir, options.data_dir)
        return options.data_dir
    if run.data_dir.is_dir() and any(run.data_dir.iterdir()):
        schema.read_manifest(run.data_dir)
    try:
        runs.read_its_manifest(run.run_dir, run.data_dir)
    except InputError as error:
        return error
    return run.data_dir
