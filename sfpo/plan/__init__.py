"""The memory planner for training jobs: ``python -m sfpo.plan``."""
