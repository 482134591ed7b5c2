"""A servable whose signatures give `ctr` alone (outputs=ctr)."""

import numpy as np
import pytest

from export import client as clients
from export import golden, native, requests, signatures, verify
from export.exporting import export
from export.options import ExportOptions
from sitn_tf.errors import InputError
from tests.export.serving_double import serve


def test_ctr_alone_is_served_in_half_the_bytes(run_dir, servable, session, tmp_path):
    options = ExportOptions(outputs="ctr", goldens=64)
    made, metadata = export(run_dir, tmp_path / "servable", options)
    asked = [g.request for g in golden.read(servable / "1")][:9]
    inputs = requests.score_inputs(asked)
    expected = session.run(signatures.SCORE, inputs)
    with native.Session(made) as opened:
        answer = opened.run(signatures.SCORE, inputs)
        report = verify.replay_goldens(opened, made)
    assert list(answer) == [signatures.CTR]
    np.testing.assert_array_equal(answer[signatures.CTR], expected[signatures.CTR])
    assert all(difference.passes for difference in report.values())
    assert "of ctr  ok" in str(report["encode_user + score_encoded against score"])
    assert list(metadata["signatures"]["score"]["outputs"]) == ["ctr"]
    assert "logit" not in metadata["signatures"]["score_encoded"]["outputs"]
    for protocol in ("grpc", "rest"):
        with serve(made) as (_, addresses):
            ask = clients.make_client(protocol, addresses[protocol], deadline=9.0)
            assert clients.check_golden(ask, made).passes
            ask.close()


def test_outputs_are_known_ones():
    with pytest.raises(InputError, match="outputs=logit is not one of: both, ctr"):
        ExportOptions(outputs="logit")
