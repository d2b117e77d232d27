"""The planner of a training job's memory: ``python -m sfpo.plan``."""
