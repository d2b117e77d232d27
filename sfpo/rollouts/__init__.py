"""Sampling completions from the live policy."""
