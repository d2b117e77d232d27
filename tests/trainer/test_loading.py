"""Two ranks and one checkpoint: the first one reads it, each holds its shards, and nothing of the model is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from sfpo.ranks import SINGLE_PROCESS
from sfpo.trainer.loading import load_model
from tests.models.family_numbers import save_tiny

PROJECT = Path(__file__).parents[2]
# Experts that are stored one by one and held together; sinks; complex rotary frequencies; tied embeddings; a head with a bias.
FAMILIES = ["mixtral", "gpt_oss", "llama4_text", "gemma2", "phi"]


@pytest.mark.slow
def test_only_the_first_rank_holds_the_whole_model(tmp_path):
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 8}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**shape, vocab_size=256), dtype=torch.bfloat16)
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    layer = 4 * sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    model.save_pretrained(tmp_path / "large")
    for family in FAMILIES:
        save_tiny(family, tmp_path / family)
    folders = [str(tmp_path / name) for name in ("large", *FAMILIES)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.trainer.loaded_on_ranks", str(tmp_path), *folders],
        cwd=PROJECT,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed is given back
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["held"] == second["held"] == whole / 2
    assert first["peak"] > whole  # so that it would be seen
    # Shards, a layer before it is cut, and some megabytes of code that is loaded late.
    assert second["peak"] < whole / 2 + 2 * layer + 30e6 < 0.9 * whole


def test_without_others_the_model_is_whole(checkpoint):
    model = load_model(checkpoint, SINGLE_PROCESS)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
