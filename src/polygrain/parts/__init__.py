"""Networks and state that objectives and methods are built from."""
