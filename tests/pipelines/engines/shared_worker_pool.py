"""Beam's worker pool for several task managers on one machine, which name their workers alike.

    python shared_worker_pool.py --service_port=PORT

Beam's own ends the worker of a name whichever of its task managers asks for it. Here workers end by
themselves, when the channel closes by which their task manager tells them what to do.
"""

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import worker_pool_main


class SharedWorkerPool(worker_pool_main.BeamFnExternalWorkerPoolServicer):
    """Leaves workers alone."""

    def StopWorker(self, stop_worker_request, unused_context):  # noqa: N802 (gRPC calls it so)
        return beam_fn_api_pb2.StopWorkerResponse()


if __name__ == "__main__":
    worker_pool_main.BeamFnExternalWorkerPoolServicer = SharedWorkerPool
    worker_pool_main.main()
