"""Semantic segmentation with a backbone: linear heads, nearest neighbours, UPerNet."""
