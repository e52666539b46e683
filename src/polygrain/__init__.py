"""Self-supervised pretraining of vision backbones at every granularity."""
