"""The training job: policy, batching, checkpoints, metrics, and the training loop."""
