"""Kinds of models in vLLM: after a weight sync, and from an export, it samples from the policy; or it says that it cannot."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ROUNDING = 1e-4
"""Nats: what float32 may differ by."""


@pytest.mark.parametrize(
    "family",
    [
        "gemma2",  # no output layer of its own: the input embedding's
        "mixtral",  # experts that vLLM packs, and that transformers holds under other names
        "glm4_moe",  # a buffer that the checkpoint stores: the bias of the router
        "olmo2",  # run by vLLM through transformers, whose class the policy shares
    ],
)
def test_a_family_in_vllm(family):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.families", family, "--here"], capture_output=True, text=True, timeout=400
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    result = json.loads(line.removeprefix("RESULT "))
    assert result["engine"] == "started"
    assert result["moved_by"] > 0.5  # stale weights would be seen
    assert result["engine_gap"] < ROUNDING and result["export_gap"] < ROUNDING


def test_weights_that_vllm_would_not_take_are_an_error():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.families", "gpt_oss", "--here"], capture_output=True, text=True, timeout=400
    )
    assert "StaleWeights: vLLM does not update all weights of GptOssForCausalLM" in done.stdout
    assert "set sampler.library: transformers" in done.stdout
