"""Two logical CPU devices for every test, so that MirroredStrategy is always tried."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import hypothesis
import pytest

import sitn_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

# A test fails for what it finds, not for how long a busy machine took.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


LONG = (
    "test_line.py",
    "training/test_resume.py",
    "export/test_contract.py",
    "distributed/test_replicas.py",
    "pipelines/test_build_dataset.py",
    "drills/test_drills.py",
    "sitn_tf/test_train.py",
    "test_readme_program.py",
    "distributed/test_workers.py",
)
"""Files that take long, those that take longest first: at the end they would run alone."""


def pytest_collection_modifyitems(items):
    def place(item):
        path = item.path.as_posix()
        return next((i for i, name in enumerate(LONG) if path.endswith(f"/{name}")), len(LONG))

    items.sort(key=place)


@pytest.fixture(scope="session")
def two_cpus():
    """The names of two logical CPU devices."""
    import tensorflow as tf

    from sitn_tf.distributed.replicas import split_cpu

    split_cpu(2)
    return [device.name for device in tf.config.list_logical_devices("CPU")[:2]]


@pytest.fixture(scope="session", autouse=True)
def _split_before_the_first_op():
    from sitn_tf.distributed.replicas import split_cpu

    split_cpu(4)


@pytest.fixture(name="op_by_op")
def _op_by_op():
    """See tests/eagerly.py."""
    from tests.eagerly import op_by_op

    with op_by_op():
        yield


@pytest.fixture(name="module_op_by_op", scope="module")
def _module_op_by_op():
    """The same for a whole file, with what its fixtures make."""
    from tests.eagerly import op_by_op

    with op_by_op():
        yield


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A small data set directory. Not to be changed: copy it."""
    from tests.small_dataset import write_small_dataset

    return write_small_dataset(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def real_data():
    """The folder of the real logs; skips where there is none."""
    folder = os.environ.get("SITN_REAL_DATA")
    if not folder or not pathlib.Path(folder).is_dir():
        pytest.skip("SITN_REAL_DATA does not name the folder of the real logs")
    return pathlib.Path(folder)
