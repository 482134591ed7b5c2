"""Hashed crosses are the same in training and in serving, however item vectors are stored."""

import numpy as np
import pytest
import tensorflow as tf

from export import requests
from export.item_vectors import fold
from export.signatures import Servable, ServingOptions
from sitn_tf import schema, trained_models
from tests.export.small_run import write_small_run
from tests.export.test_contract import ASKED, IDS


@pytest.mark.parametrize("tables", ["float32", "float16", "int8"])
def test_crosses_are_served_as_trained(tmp_path, tables):
    run_dir = write_small_run(tmp_path, "model.name=wide_deep")
    scorer = trained_models.load_scorer(run_dir).scorer
    vectors = {domain: np.concatenate(list(parts)) for domain, parts in fold(scorer).items()}
    # From here on crosses alone make a score; the vectors keep what rounds them.
    for weight in scorer.deep.weights:
        weight.assign(tf.zeros_like(weight))
    for domain, folded in vectors.items():
        width = scorer.kept_fields(domain) * scorer.config.model.embedding_dim
        folded[:, width : width + scorer.item_weights[domain].dim] = 0.0
    inputs = {name: tf.constant(ids, tf.int64) for name, ids in IDS.items()}
    trained = scorer(inputs).numpy()
    for weights in scorer.item_weights.values():
        for variable in weights.trainable_variables:
            variable.assign(tf.zeros_like(variable))
    expected = scorer(inputs).numpy()
    assert len(np.unique(expected)) == expected.size
    assert np.abs(trained - expected).max() > 1e-3
    files = {d: run_dir / schema.vocabulary_path(d, schema.ITEM) for d in schema.DOMAINS}
    options = ServingOptions(max_history=8, tables=tables)
    servable = Servable(scorer, {d: [whole] for d, whole in vectors.items()}, files, options)
    asked = {name: tf.constant(v) for name, v in requests.score_inputs(ASKED).items()}
    np.testing.assert_allclose(servable.score(**asked)["logit"], expected, rtol=1e-6, atol=1e-6)
