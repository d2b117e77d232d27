"""Tensors and callables only: no vLLM, no transformers, no files."""
