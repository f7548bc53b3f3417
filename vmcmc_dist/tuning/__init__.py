"""Searches over settings: many runs under Ray Tune, each an ordinary run."""
