"""What commands take seconds to import; `programs` forks them from a process that has this."""

import pipelines.job.run  # noqa: F401
from sitn_tf import quiet

quiet.import_tensorflow()

import export.exporting  # noqa: E402, F401
import sitn_tf.evaluation.instances  # noqa: E402
import sitn_tf.training.race  # noqa: E402
import sitn_tf.training.stage1  # noqa: E402, F401
