import dataclasses

import numpy as np
import pytest

from sitn_tf.evaluation import calibration_curves
from tests.sitn_tf import compared_runs


def test_the_error_is_the_mean_of_each_trainings_which_would_cancel_in_the_pooled_curve():
    """Of a click and no click one training says 0.5 and 0.9, another 0.1 and 0.5.

    Each is (0.5 + 0.9) / 2 off; of both together the rows at 0.5 are clicked half of the time.
    """
    said = np.array([[0.5, 0.9], [0.1, 0.5]])
    trainings = [
        dataclasses.replace(
            compared_runs.scored(0.0, 0), label=np.array([1, 0]), logit=np.log(p / (1 - p))
        )
        for p in said
    ]
    bins, error = calibration_curves.pooled("sitn", trainings)
    assert error == pytest.approx(0.7)
    np.testing.assert_allclose([bins.predicted, bins.observed], [[0.1, 0.5, 0.9], [1, 0.5, 0]])
