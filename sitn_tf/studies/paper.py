"""The paper's own studies ("Experiments" and "Ablation Study"): their arms.

The first arm of a study is its baseline. All start from stage 1 whatever it found (`AS_IT_IS`),
but for Table 2, where each model is given its best.
"""

from sitn_tf.config import has_stage1
from sitn_tf.studies.arms import RACE, SCRATCH, Arm

_MODELS = (
    *("sitn", "fm", "wide_deep", "deepfm", "din", "dien", "clsr"),
    *("mv_dnn", "conet", "minet", "semi"),
)
TABLE2 = {name: Arm((f"model.name={name}", RACE), pretrain=has_stage1(name)) for name in _MODELS}
"""Table 2: SITN, and the ten baselines in the paper's order, each by its defaults; those with a
stage 1 from the best of their starts: SITN and SEMI race up to three of them by validation AUC,
where the others are trained once. `mv_dnn`, `conet` and `minet` need a data set with source
requests.
"""

_WITHOUT_I2C = "contrast.i2c_weight=0"
TABLE3 = {
    "sitn": Arm(),
    "without_i2c": Arm((_WITHOUT_I2C,)),
    "without_i2i": Arm(("contrast.i2i_weight=0", "stage2.contrast_weight=0")),
    "without_both": SCRATCH,
}
"""Table 3: what each contrast adds. Without i2i none is kept beside stage 2's click loss either;
without both there is no stage 1.
"""

_ONE_GRANULARITY = "contrast.granularities=64"
_TWO_VIEWS = "contrast.top_k=2"
_ONE_VIEW = "contrast.top_k=1"
TABLE4 = {
    "sitn": Arm((_TWO_VIEWS,)),
    "without_mg": Arm((_ONE_GRANULARITY, _TWO_VIEWS)),
    "without_mv": Arm((_ONE_VIEW,)),
    "without_both": Arm((_ONE_GRANULARITY, _ONE_VIEW)),
}
"""Table 4: without multi-granularity there is one interest space (the paper does not say of which
K; `sweeps` has each), without multi-view a user has the nearest cluster alone (k = 1 of Eq. 6, the
default) in place of the two of the paper's Fig. 2.
"""


_TRIED = {
    "contrast.temperature": ("0.05", "0.2", "0.5", "1"),
    "contrast.top_k": ("2", "4", "8", "16"),
    "contrast.granularities": ("32", "64", "128", "256", "512"),
    "contrast.i2c_weight": ("0.1", "0.3", "3"),
    "stage2.contrast_weight": ("0", "0.003", "0.03", "0.1"),
}
SWEEPS = {
    "sitn": Arm(),
    **{
        f"{field.partition('.')[2]}_{value}": Arm((f"{field}={value}",))
        for field, values in _TRIED.items()
        for value in values
    },
}
"""One hyper-parameter of SITN at a time: tau of Eq. 3, 4 and 7, k of Eq. 6, a single K, the weight
of i2c beside i2i, and that of i2i beside stage 2's click loss. The length L of histories is not
among them, since it is the data set's: build one for each `pipelines.build_dataset --max_history`,
and give each a study of its own.
"""

FIGURE3 = {"sitn": Arm()}
"""Fig. 3: one stage 1 with an interest space of each K, as in the paper; see studies/figure3.py."""
