"""The training job: policy, batching, checkpoints, metrics, and the loop that joins them."""
