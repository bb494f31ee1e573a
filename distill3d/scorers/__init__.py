"""Scorers that come with the core."""
