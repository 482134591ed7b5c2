"""Every registered model, and one that overrides every part, is exported as it was trained."""

import numpy as np
import pytest
import tensorflow as tf

from export import native, requests
from export.exporting import export
from export.options import ExportOptions
from sitn_tf import trained_models
from sitn_tf.models.registry import SCORERS
from tests.export.small_run import write_small_run
from tests.sitn_tf.models import widened

ASKED = [
    requests.Request(("s2", "s3", "s9"), ("t5",), ("t2", "t3", "t9"), user_id="u1"),
    requests.Request((), ("t4", "t4", "t8"), ("t2", "t6", "t5"), user_id="u2"),
]
IDS = {
    "source_history": [[2, 3, 9], [0, 0, 0]],
    "target_history": [[5, 0, 0], [4, 4, 8]],
    "candidates": [[2, 3, 9], [2, 6, 5]],
}


@pytest.mark.parametrize("name", [*SCORERS, widened.NAME])
def test_a_model_is_exported_as_it_was_trained(tmp_path, monkeypatch, name):
    widened.register(monkeypatch)
    settings = f"model.name={name}", "model.popularity=true"
    run_dir = write_small_run(tmp_path, *settings, measured=False)
    made, _ = export(run_dir, tmp_path / "servable", ExportOptions(goldens=64))
    trained = trained_models.load_scorer(run_dir).scorer
    context = [feature.name for feature in trained.request_inputs]
    inputs = {key: tf.constant(rows, tf.int64) for key, rows in IDS.items()}
    inputs |= requests.context_inputs(ASKED, context)
    expected = trained(inputs).numpy()
    assert len(np.unique(expected)) == expected.size
    with native.Session(made) as session:
        whole = session.run("score", requests.score_inputs(ASKED, context))
        user = session.run("encode_user", requests.user_inputs(ASKED, context))
        shown = requests.candidate_inputs([request.candidates for request in ASKED])
        apart = session.run("score_encoded", {**user, **shown})
    np.testing.assert_allclose(whole["logit"], expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(apart["logit"], expected, rtol=1e-5, atol=2e-6)
