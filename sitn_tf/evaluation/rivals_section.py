"""SITN beside its rivals (`rivals.py`) → the section that says whom it beats, and by how much."""

from collections.abc import Sequence

from sitn_tf.evaluation.rivals import Trained, rivals
from sitn_tf.evaluation.transfer import Transfer
from sitn_tf.pages.page import Section, Table
from sitn_tf.schema import VALIDATION

TITLE = "Over its rivals"


def section(transfer: Transfer, judged: Trained, others: Sequence[Trained]) -> Section | None:
    """The gain over each rival, and what each was picked from; None where there is no rival.

    Args:
      transfer: of the judged model and its rivals at least.
      others: that rivals are picked from.
    """
    picked = rivals(judged, others)
    if not picked:
        return None
    gains = {
        other.name: gain
        for other, gain in zip(transfer.others, transfer.overall.gains, strict=True)
    }
    said = [f"{gains[one.name].told} over {role}, {one.name}" for role, one in picked.items()]
    rows = [
        [
            one.name,
            one.config.model.name,
            "yes" if one.config.model.use_source else "no",
            str(len(one.run_dirs)),
            f"{one.validation_auc:.4f}",
            ", ".join(role for role, best in picked.items() if best is one)
            or ("judged" if one is judged else ""),
        ]
        for one in (judged, *others)
    ]
    notes = []
    if transfer.split == VALIDATION:
        notes = ["They were picked by the very split that they are compared on."]
    return Section(
        TITLE,
        f"{judged.name} gains {'; '.join(said)}.",
        [
            "Rivals are picked by validation AUC, the mean over seeds; below, each slice has the "
            "gain over every one of them.",
            Table(
                "What they were picked from",
                ["model", "kind", "source histories", "seeds", "validation AUC", "role"],
                rows,
            ),
            *notes,
        ],
    )
