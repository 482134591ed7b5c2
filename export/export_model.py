"""A stage-2 run directory → a version of a servable that TF Serving loads.

    python -m export.export_model --run_dir=RUN/stage2 --output=SERVABLE

Writes SERVABLE/<next integer> under a temporary name: SavedModel, lookup tables, calibration,
golden requests, warm-up requests, metadata and checksums. It gets its number once TensorFlow's
C++ loader has answered the golden and warm-up requests from the files. Nothing is written if
the newest version is the same already. Needs the run
directory only; with the data set it was trained on (found where it was, or --data_dir) the
calibration and what quantised tables cost are measured too.
"""

import pathlib
import typing

from absl import flags

from export import calibration as calibrations
from export import metadata, version_files
from export.options import (
    DEFAULT_MAX_CANDIDATES,
    OUTPUTS,
    TABLE_KINDS,
    ExportOptions,
    Outputs,
    TableKind,
)
from sitn_tf import cli, quiet
from sitn_tf.errors import InputError

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
        max_drift=_MAX_DRIFT.value,
        allow_drift=_ALLOW_DRIFT.value,
        data_dir=pathlib.Path(_DATA_DIR.value) if _DATA_DIR.value else None,
        force=_FORCE.value,
    )
    servable = pathlib.Path(_OUTPUT.value)
    quiet.import_tensorflow()
    from export import exporting

    before = version_files.present(servable)
    made, described = exporting.export(_RUN_DIR.value, servable, options, _VERSION.value)
    print(metadata.summary(described))
    if int(made.name) in before:
        print(f"{made} is the same already: nothing written (--force writes another)")
    else:
        print(f"wrote {made}")
    if _KEEP.value is not None:
        with version_files.locked(servable):
            removed = version_files.retain(servable, _KEEP.value)
        if removed:
            print(f"removed versions {', '.join(map(str, removed))}")
    print("next:", cli.shell("export.verify", f"--servable={made}"))


if __name__ == "__main__":
    cli.run(main, FLAGS)
