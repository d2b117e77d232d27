"""Evaluation of checkpoints on the benchmarks, and the report of the results."""
