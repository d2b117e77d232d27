"""Every causal language model that transformers knows: the policy's numbers are the model's, or it is refused by name."""

import pytest

from sfpo.trainer.canary import UnsupportedModel
from tests.models.family_numbers import NOT_BUILT, NOT_TRAINED, PAGE, measure
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


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(NOT_TRAINED) - NOT_BUILT))
def test_what_is_not_trained_is_refused_by_name(family, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"docs/models\.md"):
        measure(family, tmp_path)


def test_every_reason_is_in_the_docs():
    page = PAGE.read_text()
    assert all(f"| {family} | refused: {reason} |" in page for family, reason in NOT_TRAINED.items())


@pytest.mark.parametrize("packing", ["groups", "padded", "sequences"])
def test_the_recipe_may_name_the_packing(packing, tmp_path):
    found = measure("gemma2", tmp_path, packing)
    assert found["packing"] == packing and found["logprob_error"] < 1e-4 and found["gradient_error"] < 1e-3


@pytest.mark.parametrize("family", ["gemma2", "qwen3_next"])
def test_checkpointing_changes_nothing(family, tmp_path):
    found = measure(family, tmp_path, gradient_checkpointing=True)
    assert found["logprob_error"] < 1e-4 and found["gradient_error"] < 1e-3
