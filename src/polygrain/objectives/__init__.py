"""Terms of a loss, each with the heads and memories that it alone uses."""
