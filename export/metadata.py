"""What a version says about itself (`assets.extra/metadata.json`), and as text."""

from collections.abc import Sequence
from typing import Any

from sitn_tf import schema


def readable(goldens: Sequence[Any]) -> int:
    """A golden request short enough to read, with both histories."""
    for i, g in enumerate(goldens):
        r = g.request
        lengths = (len(r.source_history), len(r.target_history), len(r.candidates))
        if all(2 <= length <= 6 for length in lengths):
            return i
    return 0


def titles_of(request: Any, item_tables: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Titles by domain and raw id, of the items of one request."""
    wanted = {
        schema.SOURCE: set(request.source_history),
        schema.TARGET: {*request.target_history, *request.candidates},
    }
    return {
        domain: {
            item: title
            for item, title in zip(table.ids, table.titles, strict=True)
            if item in wanted[domain] and title
        }
        for domain, table in item_tables.items()
    }


def describe_signatures(traced: dict[str, Any], outputs: str = "both") -> dict[str, Any]:
    """Names, shapes (null for any size) and dtypes of inputs and outputs.

    Args:
      outputs: "ctr" where the saved signatures leave the logit out.
    """

    def describe(tensors: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {"dtype": t.dtype.name, "shape": t.shape.as_list()}
            for name, t in sorted(tensors.items())
            if outputs == "both" or name != "logit"
        }

    return {
        name: {
            "inputs": describe(
                {spec.name: spec for spec in _specs(function.structured_input_signature)}
            ),
            "outputs": describe(function.structured_outputs),
        }
        for name, function in traced.items()
    }


def _specs(structured: tuple[tuple[Any, ...], dict[str, Any]]) -> list[Any]:
    positional, named = structured
    return [*positional, *named.values()]


def summary(metadata: dict[str, Any]) -> str:
    """What an export measured, for people."""
    difference = metadata["golden"]["max_difference"]
    lines = [
        f"{metadata['golden']['requests']} golden requests, serving graph against the trained "
        f"model: max abs difference {difference['ctr']:.2e} of ctr, {difference['logit']:.2e} of "
        "log-odds"
    ]
    measured = metadata["measured"]
    if measured is None:
        lines.append(f"AUC and calibration not measured: {metadata['not_measured']}")
    else:
        cost = measured["auc_trained"] - measured["auc_served"]
        lines.append(
            f"{measured['split']} AUC {measured['auc_served']:.5f} with "
            f"{metadata['options']['tables']} tables (trained model "
            f"{measured['auc_trained']:.5f}, cost {cost:+.5f})"
        )
        lines.append(
            f"calibration error {measured['calibration_error_before']:.3g} -> "
            f"{measured['calibration_error_after']:.3g} at a click rate of "
            f"{measured['click_rate']:.3g} (assets.extra/reliability.svg)"
        )
    drift = metadata["drift"]
    if drift:
        lines.append(
            f"drift from version {drift['version']} on its golden requests: {drift['mean']:.4f} "
            "of log-odds on average"
        )
    return "\n".join(lines)
