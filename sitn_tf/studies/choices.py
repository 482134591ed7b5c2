"""Studies of choices that the paper leaves open, and of what else may help: their arms.

The first arm of a study is its baseline.
"""

from sitn_tf.studies.arms import RACE, SCRATCH, Arm

TRANSFER = {
    "from_scratch": SCRATCH,
    "i2i": Arm(("contrast.i2c_weight=0",)),
    "i2i_i2c": Arm(),
}
"""What stage 1 is worth, and what i2c adds to it."""

GAPS = {
    "default": Arm(),
    "from_scratch": SCRATCH,
    "i2i_alone": Arm(("contrast.i2c_weight=0",)),
    "i2c_alone": Arm(("contrast.i2i_weight=0",)),
    "dot": Arm(("contrast.similarity=dot",)),
    "temperature_0.05": Arm(("contrast.temperature=0.05",)),
    "temperature_0.2": Arm(("contrast.temperature=0.2",)),
    "temperature_1": Arm(("contrast.temperature=1",)),
    "assignment_1": Arm(("contrast.assignment_temperature=1",)),
    "cluster_init_shared": Arm(("contrast.cluster_init=shared",)),
    "cluster_init_normal": Arm(("contrast.cluster_init=normal",)),
    "view_mlp": Arm(("contrast.view=mlp",)),
    "negatives_views": Arm(("contrast.negatives=views",)),
    "exclude_own": Arm(("contrast.exclude_own=true",)),
    "stop_cluster_gradient": Arm(("contrast.stop_cluster_gradient=true",)),
    "top_k_2": Arm(("contrast.top_k=2",)),
    "one_granularity_32": Arm(("contrast.granularities=32",)),
    "i2c_after_100": Arm(("stage1.i2c_after=100",)),
    "no_mask": Arm(("stage1.item_mask=0",)),
    "crop_and_shuffle": Arm(("stage1.item_crop=0.3", "stage1.item_shuffle=0.3")),
    "ids_alone": Arm(("stage1.train_ids=false",)),
    "freeze": Arm(("stage2.encoders=freeze",)),
    "no_contrast_in_stage_2": Arm(("stage2.contrast_weight=0",)),
    "no_residual": Arm(("encoder.residual=false",)),
    "layer_norm": Arm(("encoder.layer_norm=true",)),
    "no_positions": Arm(("encoder.positions=false",)),
    "no_products": Arm(("mlp.products=false",)),
    "din_unit": Arm(("sitn.target_attention=din",)),
}
"""The gaps of the paper, one change of the default at a time."""

_TAKEN_BACK = {
    "two_vocabularies": ("items.shared_side_features=false",),
    "ids_always": ("items.id_dropout=0",),
    "larger_batches": ("stage2.batch_size=256",),
    "no_popularity": ("model.popularity=false",),
    "stops_early": ("stage1.min_steps=0", "stage2.min_steps=0"),
    "selected_alone": ("sitn.sequence_means=false",),
}
_TAKEN_BACK_OF_STAGE1 = {
    "slow_stage_1": ("stage1.learning_rate=0.001",),
    "ids_alone": ("stage1.train_ids=false",),
    "no_contrast_in_stage_2": ("stage2.contrast_weight=0",),
}
_TRIED = {
    "ids_more_often": ("items.id_dropout=0.25",),
    "one_encoder": ("encoder.shared=true",),
    "match_inputs": ("sitn.match=inputs",),
    "match_logit": ("sitn.match=logit",),
    "source_gate": ("sitn.source_gate=true",),
    "lengths_and_idle": ("model.request_features=source_length,target_length,idle",),
    "ages": ("encoder.ages=true",),
    "hour_and_weekday": ("model.request_features=hour,weekday",),
    "dropout": ("model.dropout=0.2",),
    "row_decay": ("stage2.row_decay=1e-3",),
}
_TRIED_OF_STAGE1 = {
    "encoder_rate": ("stage2.encoder_rate=0.3",),
    "contrast_decays": ("stage2.contrast_decay_steps=1000",),
    "race": (RACE,),
}
_ALL_BACK = tuple(
    setting for change in (_TAKEN_BACK | _TAKEN_BACK_OF_STAGE1).values() for setting in change
)
QUALITY = {
    "default": Arm(),
    "i2i": Arm(("contrast.i2c_weight=0",)),
    "from_scratch": SCRATCH,
    "no_source": Arm(("model.use_source=false",), pretrain=False),
    "mean_pool": Arm(("model.name=mean_pool",), pretrain=False),
    "all_back": Arm(_ALL_BACK),
    **{
        name: Arm(change)
        for changes in (_TAKEN_BACK, _TAKEN_BACK_OF_STAGE1, _TRIED, _TRIED_OF_STAGE1)
        for name, change in changes.items()
    },
    **{
        f"scratch_{name}": Arm(change, pretrain=False)
        for name, change in (_TAKEN_BACK | _TRIED).items()
    },
}
"""What brings more of stage 1 to the score: defaults taken back one by one and together, and
options that are off; after stage 1 and from scratch, beside controls. `ages` needs a data set with
times of clicks.
"""

_I2I = "contrast.i2c_weight=0"
I2C = {
    "i2i": Arm((_I2I,)),
    "default": Arm(),
    "weight_0.2": Arm(("contrast.i2c_weight=0.2",)),
    "after_300": Arm(("stage1.i2c_after=300",)),
    "shared_start": Arm(("contrast.cluster_init=shared",)),
    "views": Arm(("contrast.negatives=views",)),
    "exclude_own": Arm(("contrast.exclude_own=true",)),
    "stop_gradient": Arm(("contrast.stop_cluster_gradient=true",)),
    "one_granularity_32": Arm(("contrast.granularities=32",)),
    "top_k_2": Arm(("contrast.top_k=2",)),
    "view_mlp": Arm(("contrast.view=mlp",)),
    "balanced": Arm(("contrast.assignment=balanced",)),
    "balanced_shared_start": Arm(("contrast.assignment=balanced", "contrast.cluster_init=shared")),
    "balanced_one_encoder": Arm(("contrast.assignment=balanced", "encoder.shared=true")),
}
"""Ways for i2c to add something to i2i alone."""
