"""Which images a training step and an evaluation see: rank-aware samplers without a memory."""
