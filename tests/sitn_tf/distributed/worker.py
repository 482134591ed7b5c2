"""One worker of a MultiWorkerMirroredStrategy, for test_workers.py.

TF_CONFIG=... python -m tests.sitn_tf.distributed.worker STAGE DATA_DIR OUTPUT.npz
"""

import pathlib
import sys

import numpy as np

from sitn_tf.distributed.replicas import make_strategy
from tests.sitn_tf.distributed import ten_steps


def main() -> None:
    stage, data_dir, output = sys.argv[1:]
    trial = ten_steps.Trial(pathlib.Path(data_dir), stage, make_strategy())
    losses, weights = trial.train(ten_steps.read_batches(pathlib.Path(data_dir), stage))
    np.savez(output, losses=losses, **{f"weight_{i}": w for i, w in enumerate(weights)})


if __name__ == "__main__":
    main()
