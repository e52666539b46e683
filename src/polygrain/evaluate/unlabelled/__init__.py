"""What can be said about features without labels."""
