"""Protocols that measure what a backbone learned."""
