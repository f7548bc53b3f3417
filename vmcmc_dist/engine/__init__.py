"""Engine: launch, the per-worker loop, DeepSpeed's two engines, checkpoints, EMA, watching."""
