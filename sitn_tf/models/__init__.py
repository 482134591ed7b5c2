"""Models, one file each, only wiring: item vectors in, logits (or stage 1's losses) out."""
