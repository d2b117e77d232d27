"""Scoring of checkpoints on the benchmarks, and the report made of the scores."""
