"""Draws the pictures of `polygrain.data.scenes`."""
