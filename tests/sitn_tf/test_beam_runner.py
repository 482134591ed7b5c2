"""Beam's local runner where no other is asked for."""

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from sitn_tf import beam_runner


@pytest.mark.parametrize(
    ("flags", "runner", "name"),
    [
        ([], beam_runner.LOCAL, beam_runner.LOCAL),
        (["--runner=DirectRunner"], beam_runner.LOCAL, beam_runner.LOCAL),
        (["--runner=apache_beam.runners.DirectRunner"], beam_runner.LOCAL, beam_runner.LOCAL),
        (["--runner=DataflowRunner"], "DataflowRunner", "DataflowRunner"),
        (["--runner=some.DaskRunner"], "some.DaskRunner", "DaskRunner"),
    ],
)
def test_local_by_default(flags, runner, name):
    options = PipelineOptions(flags)
    assert beam_runner.local_by_default(options) == name
    assert options.view_as(StandardOptions).runner == runner
