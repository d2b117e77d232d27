"""Weights leave the policy as a published checkpoint has them, and come back as the policy."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sfpo.trainer.checkpoint import export_checkpoint
from sfpo.trainer.policy import Policy
from sfpo.trainer.published_names import published, stored_once

EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
DEEPSEEK = {
    **EXPERTS,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
}
FAMILIES = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},  # experts are one tensor in transformers, many in the file
    "deepseek_v3": DEEPSEEK,  # a bias of the router that is a buffer
    "glm4_moe": {**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "gemma2": {"query_pre_attn_scalar": 16},  # tied embeddings
    "apertus": {"hidden_act": "xielu"},  # activations with parameters and buffers
    "gpt_neox": {},  # a head of another name
}


@pytest.fixture(params=FAMILIES)
def folder(request, family_checkpoint):
    return family_checkpoint(request.param, **FAMILIES[request.param])


@pytest.fixture
def make_policy(params):
    def make(folder, **changes):
        tiny = params.suites["tiny"]
        train = tiny.train.model_copy(update=changes)
        return Policy(folder, params.objectives["grpo"], train, tiny.execution, 40)

    return make


def stored_weights(model):
    entries = {name: (lambda tensor=tensor: tensor.detach()) for name, tensor in stored_once(model, state_of(model)).items()}
    return published(model, entries)


def state_of(model):
    return model.state_dict(keep_vars=True)


def test_the_names_layouts_and_values_are_those_of_the_checkpoint(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    file = load_file(folder / "model.safetensors")
    found = dict(stored_weights(model))
    assert found.keys() == file.keys()
    assert all(torch.equal(found[name], file[name]) for name in file)


def test_an_export_is_the_policy_to_the_bit(folder, make_policy, tmp_path):
    policy = make_policy(folder)
    with torch.no_grad():  # each storage once: tied weights stay tied
        for tensor in {tensor.data_ptr(): tensor for tensor in policy.model.state_dict().values()}.values():
            tensor.add_(0.05 * torch.randn(tensor.shape))
    export_checkpoint(policy, folder, tmp_path / "best")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "best", dtype=torch.float32)
    mine, theirs = policy.model.state_dict(), exported.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_tied_weights_are_one_entry_under_the_name_that_loading_reads(family_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(family_checkpoint("gemma2"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    names = dict(stored_weights(model))
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names


def test_a_tensor_is_made_when_it_is_its_turn(family_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(family_checkpoint("mixtral", **FAMILIES["mixtral"]))
    made = []

    def entry(name, tensor):
        return lambda: (made.append(name), tensor.detach())[1]

    weights = published(model, {name: entry(name, tensor) for name, tensor in stored_once(model, state_of(model)).items()})
    assert not made
    for count, (_, _) in enumerate(weights, start=1):
        assert len(made) <= count  # a fused tensor gives several
    assert len(made) == len(stored_once(model, state_of(model)))


def test_each_tensor_of_an_export_has_the_data_type_of_the_starting_one(family_checkpoint, make_policy, tmp_path):
    # bfloat16 weights beside a float32 bias of the router, as DeepSeek-V3 is published.
    folder = family_checkpoint("deepseek_v3", **DEEPSEEK, dtype="bfloat16")
    start = load_file(folder / "model.safetensors")
    mixed = {name: tensor if "e_score" in name else tensor.bfloat16() for name, tensor in start.items()}
    save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
    export_checkpoint(make_policy(folder), folder, tmp_path / "best")
    exported = load_file(tmp_path / "best/model.safetensors")
    assert {name: tensor.dtype for name, tensor in exported.items()} == {name: tensor.dtype for name, tensor in mixed.items()}
    assert all(torch.equal(exported[name], mixed[name]) for name in mixed)
    assert json.loads((tmp_path / "best/config.json").read_text()) == json.loads((folder / "config.json").read_text())
