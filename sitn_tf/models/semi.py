"""SEMI: sequence encoders pre-trained across the domains, and items that the candidate selects.

Lei et al., "SEMI: A Sequential Multi-Modal Information Transfer Network for E-Commerce Micro-Video
Recommendations", KDD 2021 (doi 10.1145/3447548.3467189); Lei et al. (2021) in the SITN paper, which
describes it in "Related Work", "Instance-to-Instance Contrastive Learning" and "Baselines".

    stage 1:  z_d = f_d(items of d),  p_d = mean of z_d,  L = L_i2i(p_s, p_t)
    stage 2:  u_d = attention of the candidate v over z_d
              logit = MLP(concat(p_s, p_t, u_s, u_t, v))

Products are the source domain, micro-videos the target. Of the original only the abstract and a
summary of its components were to be had, and no code: that sequence encoders over multi-modal item
features are pre-trained by a contrast of both domains which bounds their mutual information, and
that attention then selects the relevant items of both. What both leave open is taken from SITN,
which calls its own L_i2i similar to SEMI's, so that the two models differ in what the SITN paper
says they differ in:

- Encoders are Eq. 1's blocks, the contrast is Eq. 3-4 with the other users of a batch as negatives
  (a summary points to MoCo, so that the original may keep a queue of them), without interest
  spaces: `contrast.i2c_weight` is 0.
- Multi-modal features (of UniVL and UNITER there) are what `items.side_features` has of an item,
  beside its id: its vector where the data set has some (of item files, or of titles by a model),
  title words where not and besides, brand and categories.
- How u_d, p_d and v come together is a reading: one MLP over all, with products of Eq. 8's kind.
"""

from sitn_tf.config import Config
from sitn_tf.models.sitn import Sitn
from sitn_tf.sections import SitnConfig


class Semi(Sitn):
    """SITN's scorer, always with each sequence's mean beside what the candidate selects of it."""

    @staticmethod
    def options_of(config: Config) -> SitnConfig:
        """None of SITN's but the means, whatever their defaults."""
        return SitnConfig(
            target_attention="multi_head", match="none", source_gate=False, sequence_means=True
        )
