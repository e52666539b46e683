"""Fine-tuning: the backbone learns with the classifier."""
