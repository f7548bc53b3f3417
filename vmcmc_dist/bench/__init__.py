"""Measurements behind the headline numbers; each has one command."""
