"""Reading and writing backbones, ours and the authors'."""
