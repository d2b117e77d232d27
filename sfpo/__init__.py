"""Slow-Fast Policy Optimization: the update rule, its rivals, and the training job that compares them."""
