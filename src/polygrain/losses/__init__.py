"""Pure functions from tensors to scalars."""
