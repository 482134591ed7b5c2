"""Which of Beam's runners is meant: on one machine the local one itself."""

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

LOCAL = "FnApiRunner"


def local_by_default(options: PipelineOptions) -> str:
    """The name of the runner; where none or DirectRunner is given, sets the local one.

    Beam's DirectRunner first tries to download another runner, so it is not what one asks
    for on a machine without a network.
    """
    standard = options.view_as(StandardOptions)
    runner = str(standard.runner or "DirectRunner").rsplit(".", 1)[-1]
    if runner == "DirectRunner":
        runner = standard.runner = LOCAL
    return runner
