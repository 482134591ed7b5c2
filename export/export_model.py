"""A stage-2 run directory → a version of a servable that TF Serving loads.

    python -m export.export_model --run_dir=RUN/stage2 --output=SERVABLE

Writes SERVABLE/<next integer> under a temporary name: SavedModel, lookup tables, calibration,
golden requests, warm-up requests, metadata and checksums. It gets its number once TensorFlow's
C++ loader has answered the golden and warm-up requests from the files. Nothing is written if
the newest version is the same already. Needs the run
directory only; with the data set it was trained on (found where it was, or --data_dir) the
calibration and what quantised tables cost are measured too.
"""

import dataclasses
import datetime
import hashlib
import json
import pathlib
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from export import calibration as calibrations
from export import metadata, versions
from export.options import (
    DEFAULT_MAX_CANDIDATES,
    OUTPUTS,
    TABLE_KINDS,
    ExportOptions,
    Outputs,
    TableKind,
)
from sitn_tf import cli, quiet, schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation import metrics

FLAGS = flags.FlagValues()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Stage-2 run directory.", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "Directory of versions.", flag_values=FLAGS)
_VERSION = flags.DEFINE_integer(
    "version", None, "Integer to write; the next one if not given.", 1, flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Data set of the run, if it has moved.", flag_values=FLAGS
)
_TABLES = flags.DEFINE_string(
    "tables", "float32", f"Item vectors as {', '.join(TABLE_KINDS)}.", flag_values=FLAGS
)
_CALIBRATE = flags.DEFINE_string(
    "calibrate",
    "none",
    f"Step fitted on the validation split: {', '.join(calibrations.KINDS)}.",
    flag_values=FLAGS,
)
_UNDO_SAMPLING = flags.DEFINE_boolean(
    "undo_sampling", True, "Shift logits by the log of the sampling rate.", flag_values=FLAGS
)
_MAX_CANDIDATES = flags.DEFINE_integer(
    "max_candidates",
    DEFAULT_MAX_CANDIDATES,
    "Longest row of candidates answered.",
    20,
    flag_values=FLAGS,
)
_OUTPUTS = flags.DEFINE_string(
    "outputs", "both", f"What signatures that score give: {', '.join(OUTPUTS)}.", flag_values=FLAGS
)
_MAX_DRIFT = flags.DEFINE_float(
    "max_drift",
    0.5,
    "Largest mean change of log-odds on the newest version's golden requests.",
    flag_values=FLAGS,
)
_ALLOW_DRIFT = flags.DEFINE_boolean(
    "allow_drift", False, "Export even if scores drift further.", flag_values=FLAGS
)
_FORCE = flags.DEFINE_boolean(
    "force", False, "Write a version even if the newest one is the same.", flag_values=FLAGS
)
_KEEP = flags.DEFINE_integer(
    "keep", None, "Versions to keep; older ones are removed.", 1, flag_values=FLAGS
)

FORMAT = 1


def main(_: list[str]) -> None:
    """Exports and says what was written and what to run next."""
    if _RUN_DIR.value is None or _OUTPUT.value is None:
        missing = "run_dir" if _RUN_DIR.value is None else "output"
        raise InputError(f"--{missing} is missing: give --run_dir=RUN/stage2 --output=SERVABLE")
    options = ExportOptions(
        tables=typing.cast(TableKind, _TABLES.value),
        calibrate=typing.cast(calibrations.Kind, _CALIBRATE.value),
        undo_sampling=_UNDO_SAMPLING.value,
        max_candidates=_MAX_CANDIDATES.value,
        outputs=typing.cast(Outputs, _OUTPUTS.value),
        max_drift=None if _ALLOW_DRIFT.value else _MAX_DRIFT.value,
        data_dir=pathlib.Path(_DATA_DIR.value) if _DATA_DIR.value else None,
        force=_FORCE.value,
    )
    servable = pathlib.Path(_OUTPUT.value)
    quiet.import_tensorflow()
    before = versions.present(servable)
    made, described = export(pathlib.Path(_RUN_DIR.value), servable, options, _VERSION.value)
    print(metadata.summary(described))
    if int(made.name) in before:
        print(f"{made} is the same already: nothing written (--force writes another)")
    else:
        print(f"wrote {made}")
    if _KEEP.value is not None:
        removed = versions.retain(servable, _KEEP.value)
        if removed:
            print(f"removed versions {', '.join(map(str, removed))}")
    print(f"next: python -m export.verify --servable={made}")


def export(
    run_dir: pathlib.Path,
    servable: pathlib.Path,
    options: ExportOptions | None = None,
    version: int | None = None,
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes a version; returns its directory and its metadata.

    If no `version` is named and the newest one is the same already, nothing is written and
    its directory is returned.

    Raises:
      InputError: no finished stage-2 run, an existing version, a data set that a fit needs
        and that is not there, or scores that drift too far from the newest version's.
    """
    options = options or ExportOptions()
    if not run_dir.is_dir():
        raise InputError(
            f"--run_dir={run_dir} is not a directory: train a run with "
            "python -m sitn_tf.train --stage=2"
        )
    if version is not None:
        versions.check_free(servable, version)
    from sitn_tf import runs

    runs.check_finished(run_dir, schema.STAGE2)
    return _Export(runs.load_scorer(run_dir), servable, options).write(version)


class _Export:
    """One export: what its steps share."""

    def __init__(self, run: Any, servable: pathlib.Path, options: ExportOptions) -> None:
        from export import requests, signatures
        from export.item_vectors import fold

        self.run, self.servable, self.options = run, servable, options
        self.newest = _newest_goldens(servable, options)
        self.data_dir = _data_set(run, options)
        self.vocabulary_files = {
            domain: run.run_dir / schema.vocabulary_path(domain, schema.ITEM)
            for domain in schema.DOMAINS
        }
        self.vocabularies = {
            domain: requests.read_vocabulary(path) for domain, path in self.vocabulary_files.items()
        }
        for domain, vocabulary in self.vocabularies.items():
            _check_vocabulary(run, domain, self.vocabulary_files[domain], len(vocabulary))
        self.context = [feature.name for feature in run.scorer.config.request_inputs]
        self.calibration = self._fit()
        self.graph = signatures.Servable(
            run.scorer,
            {domain: fold(encoder.items) for domain, encoder in run.scorer.domains.items()},
            self.vocabulary_files,
            signatures.ServingOptions(
                max_history=run.manifest.max_history,
                max_candidates=options.max_candidates,
                calibration=self.calibration,
                tables=options.tables,
                outputs=options.outputs,
            ),
        )

    def write(self, version: int | None) -> tuple[pathlib.Path, dict[str, Any]]:
        from export import golden, verify, warmup

        with versions.new_version(self.servable, version) as new:
            self.traced = self.graph.save(new.path)
            goldens = self._goldens()
            golden.write(new.path, goldens)
            asked = [g.request for g in goldens]
            warmup.write(new.path, warmup.calls(asked, self.vocabularies, self.traced))
            described = self._metadata(goldens) | {
                "drift": self._drift(),
                "measured": self._measured(new.path),
            }
            text = json.dumps(described, indent=2) + "\n"
            (new.path / versions.METADATA_FILE).write_text(text)
            if version is None and not self.options.force:
                twin = same_as_newest(new.path, self.servable)
                if twin is not None:
                    new.wanted = False
                    return twin, described
            # What the files answer, not what this process does: TF Serving has the files only.
            verify.check(new.path)
            versions.write_checksums(new.path)
        return new.path, described

    def _shift(self) -> float:
        if not self.options.undo_sampling:
            return 0.0
        try:
            return calibrations.shift_of(self.run.manifest.negatives)
        except ValueError as error:
            raise InputError(f"{self.run.run_dir}: {error}: give --noundo_sampling") from error

    def _fit(self) -> calibrations.Calibration:
        from export import measure

        shift = self._shift()
        if self.options.calibrate == "none":
            return calibrations.Calibration(shift=shift)
        if self.data_dir is None:
            raise InputError(
                f"--calibrate={self.options.calibrate} needs the data set of the run, which is "
                f"not at {self.run.data_dir}: give --data_dir"
            )
        found = measure.trained_logits(self.run.scorer, self.data_dir, schema.VALIDATION)
        return calibrations.fit(self.options.calibrate, found.logit, found.label, shift)

    def _goldens(self) -> list[Any]:
        from export import golden

        requests = golden.make_requests(
            self.run.tables,
            self.run.manifest.max_history,
            self.options.goldens,
            context=self.context,
        )
        trained = golden.trained_logits(
            self.run.scorer,
            requests,
            self.vocabularies,
            self.run.manifest.max_history,
            self.calibration,
        )
        self.exported = golden.served(self._answer, requests)
        return [
            golden.Golden(request, tuple(a.tolist()), tuple(b.tolist()))
            for request, a, b in zip(requests, trained, self.exported[1], strict=True)
        ]

    def _answer(self, batch: Sequence[Any]) -> dict[str, np.ndarray]:
        from export import requests, signatures, warmup

        # The newest version's golden requests may be of a model with other inputs.
        inputs = requests.score_inputs(batch, self.context)
        return warmup.run_traced(self.traced, signatures.SCORE, inputs)

    def _drift(self) -> dict[str, Any] | None:
        """How far scores are from the newest version's, on its own golden requests."""
        from export import golden

        if self.newest is None:
            return None
        version, old = self.newest
        _, found = golden.served(self._answer, [g.request for g in old])
        mean = golden.mean_shift(found, [g.exported for g in old])
        if self.options.max_drift is not None and not mean <= self.options.max_drift:
            raise InputError(
                f"log-odds drift by {mean:.3f} on average from version {version} on its "
                f"golden requests, over --max_drift={self.options.max_drift}: look at the run, "
                "then give --allow_drift"
            )
        return {"version": version, "requests": len(old), "mean": mean}

    def _measured(self, version: pathlib.Path) -> dict[str, Any] | None:
        """AUC and calibration on the test split, of the trained model and of the graph."""
        from export import measure, reliability

        if self.data_dir is None:
            return None
        trained = measure.trained_logits(self.run.scorer, self.data_dir, schema.TEST)
        served = measure.served_logits(self.traced, self.data_dir, schema.TEST)
        rate = float(np.exp(self.calibration.shift))
        # A kept negative stands for 1/rate of them in the world that ctr speaks of.
        weights = np.where(trained.label > 0, 1.0, 1.0 / rate)
        curves = {
            "before": reliability.curve(
                trained.label, calibrations.sigmoid(trained.logit), weights
            ),
            "after": reliability.curve(served.label, calibrations.sigmoid(served.logit), weights),
        }
        diagram = reliability.svg(curves, f"test split, {self.options.calibrate}")
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

    def _metadata(self, goldens: list[Any]) -> dict[str, Any]:
        from export import golden
        from sitn_tf import runs

        run = self.run
        shown = metadata.readable(goldens)
        titles = metadata.titles_of(goldens[shown].request, run.tables)
        return {
            "format": FORMAT,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "run": {
                "run_dir": str(run.run_dir),
                "init": run.info.init,
                "dataset_hash": run.manifest.dataset_hash,
                "versions": run.info.versions,
                "model": dataclasses.asdict(run.config.model),
            },
            "metrics": run.metrics,
            "schema_hash": run.manifest.schema_hash,
            "encoder": self.graph.fingerprint,
            "vocabularies": {
                domain: {
                    "items": len(self.vocabularies[domain]),
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                }
                for domain, path in self.vocabulary_files.items()
            },
            "options": {
                "tables": self.options.tables,
                "max_candidates": self.options.max_candidates,
                "outputs": self.options.outputs,
                "max_history": run.manifest.max_history,
            },
            "calibration": self.calibration.to_dict(),
            "signatures": metadata.describe_signatures(self.traced, self.options.outputs),
            "golden": {
                "requests": len(goldens),
                "max_difference": dataclasses.asdict(
                    golden.compare(self.exported, [g.trained for g in goldens])
                ),
            },
            "example": {"request": shown, "titles": titles},
            "versions": runs.versions(),
        }


def _newest_goldens(servable: pathlib.Path, options: ExportOptions) -> tuple[int, list[Any]] | None:
    """The newest version and its golden requests; None where there is none to be held to."""
    from export import golden

    present = versions.present(servable)
    if not present:
        return None
    newest = servable / str(present[-1])
    try:
        return present[-1], golden.read(newest)
    except (OSError, ValueError, KeyError) as error:
        if options.max_drift is None:
            return None
        raise InputError(
            f"{newest} is damaged, its golden requests cannot be read: withdraw it with "
            f"python -m export.versions --servable={servable} --rollback, or give "
            "--allow_drift"
        ) from error


def same_as_newest(made: pathlib.Path, servable: pathlib.Path) -> pathlib.Path | None:
    """The newest version, if it has the weights, settings and scores of the one just made."""
    from export import golden

    present = versions.present(servable)
    if not present:
        return None
    newest = servable / str(present[-1])
    told = []
    for version in (made, newest):
        try:
            metadata = versions.read_metadata(version)
            scores = (version / golden.FILE).read_bytes()
        except (InputError, OSError):
            return None  # a damaged version is like no other
        told.append(({**metadata, "created": None, "drift": None}, scores))
    same = told[0] == told[1] and versions.flaw(newest) is None
    return newest if same else None


def _check_vocabulary(run: Any, domain: str, path: pathlib.Path, tokens: int) -> None:
    """Raises InputError where lookups would give ids that mean other items to the model."""
    items = run.tables[domain].size - schema.FIRST_ID
    if tokens != items:
        raise InputError(
            f"{path} has {tokens} items, the item table {items}: the run directory "
            "is damaged, train it again"
        )
    known = run.manifest.vocabularies.get(schema.vocabulary_name(domain, schema.ITEM), {})
    expected = known.get("sha256")
    if expected and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise InputError(
            f"{path} is not the vocabulary that the run was trained with (its sha256 is not "
            "the manifest's): copy it from the data set again"
        )


def _data_set(run: Any, options: ExportOptions) -> pathlib.Path | None:
    """The data set of the run, or None where it is gone."""
    if options.data_dir is not None:
        manifest = schema.read_manifest(options.data_dir)
        if manifest.dataset_hash != run.manifest.dataset_hash:
            raise InputError(
                f"--data_dir={options.data_dir} is the data set {manifest.dataset_hash}, "
                f"{run.run_dir} was trained on {run.manifest.dataset_hash}: give that one"
            )
        return options.data_dir
    try:
        manifest = schema.read_manifest(run.data_dir)
    except InputError:
        return None  # gone, or built anew by another version: an export can do without it
    return run.data_dir if manifest.dataset_hash == run.manifest.dataset_hash else None


if __name__ == "__main__":
    cli.run(main, FLAGS)
