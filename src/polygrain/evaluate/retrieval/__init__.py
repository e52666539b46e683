"""Ranked lists of images and patches: retrieval, near copies, correspondence."""
