"""Every causal language model that transformers knows: the policy's numbers are the model's, or it is refused by name."""

import json
import re
from importlib.util import find_spec

import pytest

from sfpo.trainer.canary import UnsupportedModel
from tests.models.family_numbers import NOT_TRAINED, PAGE, RESULTS, measure, table
from tests.models.tiny_families import FAMILIES

# One of each kind: plain; windows and soft caps; sinks and windows; chunks and experts; scaled logits; a head with a bias; no
# arguments passed on; position biases; linear attention; state space beside attention; state space; recurrence.
KINDS = [
    "llama",
    "gemma2",
    "gpt_oss",
    "llama4_text",
    "granite",
    "phi",
    "nemotron",
    "bloom",
    "qwen3_next",
    "bamba",
    "mamba",
    "rwkv",
]
PACKING = {
    "llama": "groups",
    "gemma2": "groups",
    "gpt_oss": "groups",
    "llama4_text": "groups",
    "nemotron": "groups",
    "rwkv": "padded",
}


def require_right(family, folder) -> None:
    found = measure(family, folder)
    assert found["logprob_error"] < 1e-4 and found["gradient_error"] < 1e-3, found
    assert found["packing"] == PACKING.get(family, found["packing"])


@pytest.mark.parametrize("family", KINDS)
def test_one_of_each_kind_is_right(family, tmp_path):
    require_right(family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(KINDS) - set(NOT_TRAINED)))
def test_every_family_is_right(family, tmp_path):
    require_right(family, tmp_path)


@pytest.mark.parametrize("family", sorted(NOT_TRAINED))
def test_what_is_not_trained_is_refused_with_the_message_of_the_docs(family, tmp_path):
    if family == "gemma3n" and find_spec("timm"):
        pytest.skip("timm is installed")
    reason, message = NOT_TRAINED[family]
    with pytest.raises(UnsupportedModel, match=re.escape(message)):
        measure(family, tmp_path)
    assert f"| {family} | refused: {reason} ({message}) |" in PAGE.read_text()


def test_the_page_shows_the_results():
    assert table(json.loads(RESULTS.read_text())) in PAGE.read_text()


@pytest.mark.parametrize("packing", ["groups", "padded", "sequences"])
def test_the_recipe_may_name_the_packing(packing, tmp_path):
    found = measure("gemma2", tmp_path, packing)
    assert found["packing"] == packing and found["logprob_error"] < 1e-4 and found["gradient_error"] < 1e-3


@pytest.mark.parametrize("family", ["gemma2", "qwen3_next"])
def test_checkpointing_changes_nothing(family, tmp_path):
    found = measure(family, tmp_path, gradient_checkpointing=True)
    assert found["logprob_error"] < 1e-4 and found["gradient_error"] < 1e-3
