"""Adapters: the checkpoint until they move, merged for every reader, and all that gradients, moments and snapshots are of."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.algorithms.weights import snapshot
from sfpo.config import Execution, Lora
from sfpo.schema import ConfigError
from sfpo.trainer.background import Background
from sfpo.trainer.checkpoint import export_checkpoint, load_state, newest_state, save_state
from sfpo.trainer.lora import adapted_tensors
from sfpo.trainer.policy import Policy
from sfpo.types import OldPolicy, TrainBatch
from tests.models.tiny_families import tiny_model

PROMPTS = [[5, 6, 7], [5, 6, 7], [8, 9], [8, 9]]
COMPLETIONS = [[10, 11], [12, 13, 14, 15], [16], [17, 18, 19]]
LORA = Lora(rank=4, alpha=8.0)


@pytest.fixture
def make_policy(checkpoint, params):
    def make(lora=LORA, seed=0, objective=params.objectives["grpo"], start=checkpoint, **changes) -> Policy:
        train = params.suites["tiny"].train
        optimizer = train.optimizer.model_copy(update={"learning_rate": 1e-2})
        changes = {"mini_batch_prompts": 1, "optimizer": optimizer, "lora": lora, **changes}
        computing = {key: changes.pop(key) for key in set(changes) & set(Execution.model_fields)}
        execution = params.suites["tiny"].execution.model_copy(update=computing)
        return Policy(start, objective, train.model_copy(update=changes), execution, 32, seed=seed)

    return make


def batch_of(policy: Policy) -> TrainBatch:
    old_logprobs, entropy = policy.score(PROMPTS, COMPLETIONS)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    return TrainBatch(PROMPTS, COMPLETIONS, advantages, OldPolicy(old_logprobs, entropy.mean().item()), group_size=2)


def step(policy: Policy, rule: str = "sfpo") -> None:
    make_update_rule(rule).step(policy, batch_of(policy))


def test_the_policy_starts_as_the_checkpoint_to_the_bit(make_policy, checkpoint):
    start = load_file(checkpoint / "model.safetensors")
    seen = dict(make_policy().weights())
    assert seen.keys() == start.keys()
    assert all(torch.equal(seen[name], start[name]) for name in start)
    assert torch.equal(make_policy().score(PROMPTS, COMPLETIONS)[0], make_policy(lora=None).score(PROMPTS, COMPLETIONS)[0])


def test_readers_see_the_weights_that_the_policy_computes_with(make_policy, checkpoint, tmp_path):
    policy = make_policy()
    step(policy)
    export_checkpoint(policy, checkpoint, tmp_path / "best")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "best")
    for name, weight in policy.weights():
        assert torch.equal(model.state_dict()[name], weight)
    logits = model(torch.tensor([PROMPTS[1] + COMPLETIONS[1]])).logits[0, 2:6]
    theirs = logits.log_softmax(-1).gather(-1, torch.tensor(COMPLETIONS[1])[:, None])[:, 0]
    ours = policy.score(PROMPTS, COMPLETIONS)[0][2:6]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (make_policy(lora=None).score(PROMPTS, COMPLETIONS)[0][2:6] - ours).abs().max() > 1e-2


def test_adapters_alone_are_trained_and_copied(make_policy):
    policy = make_policy()
    frozen = {name: weight.clone() for name, weight in policy.model.named_parameters() if not weight.requires_grad}
    step(policy)
    assert all(torch.equal(weight, frozen[name]) for name, weight in policy.model.named_parameters() if name in frozen)
    # A [4, width in] and B [width out, 4] beside each of a layer's seven matrices.
    config = policy.model.config
    width, inner = config.hidden_size, config.intermediate_size
    heads, keys = (
        count * width // config.num_attention_heads for count in (config.num_attention_heads, config.num_key_value_heads)
    )
    layer = 2 * (width + heads) + 2 * (width + keys) + 3 * (width + inner)
    assert sum(tensor.numel() for tensor in snapshot(policy.parameters())) == 4 * layer * config.num_hidden_layers
    assert (
        sum(tensor.numel() for name, tensor in policy.state().items() if not name.startswith("step."))
        == 12 * layer * config.num_hidden_layers
    )


def test_named_matrices_alone_get_adapters(make_policy):
    policy = make_policy(lora=Lora(rank=2, alpha=2.0, matrices=["q_proj", "v_proj"]))
    assert len(policy.parameters()) == 2 * 2 * policy.model.config.num_hidden_layers
    with pytest.raises(ConfigError, match=r"train.lora.matrices = \['w_q'\]"):
        make_policy(lora=Lora(rank=2, alpha=2.0, matrices=["w_q"]))
    with pytest.raises(
        ConfigError, match=r"the model have no matrix called \['v_porj'\]; available: down_proj, gate_proj, k_proj"
    ):
        make_policy(lora=Lora(rank=2, alpha=2.0, matrices=["q_proj", "v_porj"]))


def test_the_seed_decides_where_adapters_start(make_policy):
    before = torch.random.get_rng_state()
    one, same, other = (make_policy(seed=seed).parameters()[0] for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_gradient_is_the_full_gradients_share(make_policy):
    # W' = W + s B A with s = 8 / 4: dL/dB = s dL/dW' A^T, and through B = 0 nothing reaches A.
    adapted, full = make_policy(mini_batch_prompts=2), make_policy(lora=None, mini_batch_prompts=2)
    matrix = "model.layers.0.mlp.up_proj"
    weights = [dict(policy.model.named_parameters()) for policy in (adapted, full)]
    a, b = (weights[0][f"{matrix}.lora_{name}.default.weight"] for name in "AB")
    start, gradients = a.detach().clone(), []
    for policy, of_interest in ((adapted, (a, b)), (full, (weights[1][f"{matrix}.weight"],))):
        policy.descend(batch_of(policy), lambda chosen=of_interest: gradients.extend(p.grad.clone() for p in chosen))
    of_a, of_b, of_matrix = gradients
    torch.testing.assert_close(of_b, 2.0 * of_matrix @ start.T, rtol=1e-4, atol=1e-7)
    assert of_b.abs().max() > 1e-4 and not of_a.any()


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True, "policy_dtype": "bfloat16"}])
def test_a_loaded_state_goes_on_bit_for_bit(make_policy, tmp_path, changes):
    through = make_policy(**changes)
    step(through)
    save_state(through, tmp_path, 1, {}, Background(threaded=False))
    step(through)
    resumed = make_policy(seed=3, **changes)
    load_state(resumed, newest_state(tmp_path)[0])
    step(resumed)
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), resumed.parameters(), strict=True))


def test_in_bfloat16_the_frozen_matrices_alone_are_kept_in_it(make_policy):
    policy, full = make_policy(policy_dtype="bfloat16"), make_policy(lora=None, policy_dtype="bfloat16")
    kept = {name for name, weight in policy.model.named_parameters() if weight.dtype == torch.bfloat16}
    assert kept and all("_proj.base_layer." in name for name in kept)
    # What autocast makes of float32 weights: the same numbers.
    assert torch.equal(policy.score(PROMPTS, COMPLETIONS)[0], full.score(PROMPTS, COMPLETIONS)[0])


def test_an_entropy_bonus_reaches_adapters_past_a_frozen_output_layer(make_policy, params):
    policy = make_policy(objective=params.objectives["grpo"].model_copy(update={"entropy_coefficient": 0.1}))
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    step(policy, "grpo")
    assert any(not torch.equal(one, other) for one, other in zip(before, policy.parameters(), strict=True))


EXPERTS = {
    "mixtral": ({"num_local_experts": 4, "num_experts_per_tok": 2}, {"gate_up_proj", "down_proj"}),
    "qwen3_moe": ({"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}, {"gate_up_proj", "down_proj"}),
    # [experts, in, out], with biases
    "gpt_oss": ({"num_local_experts": 4, "num_experts_per_tok": 2}, {"gate_up_proj", "down_proj"}),
    "granitemoe": ({"num_local_experts": 4, "num_experts_per_tok": 2}, {"weight"}),
}


@pytest.fixture(params=EXPERTS)
def experts(request, family_checkpoint):
    settings, names = EXPERTS[request.param]
    return family_checkpoint(request.param, **settings), names


def move(policy: Policy) -> None:
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))


def test_adapters_of_experts_reach_the_weights_that_readers_see(experts, make_policy, tmp_path):
    folder, names = experts
    policy = make_policy(start=folder)
    assert names <= {name.rpartition(".")[2] for name in adapted_tensors(policy.model)}
    start = load_file(folder / "model.safetensors")
    move(policy)
    export_checkpoint(policy, folder, tmp_path / "best")
    moved = load_file(tmp_path / "best/model.safetensors")
    of_experts = {name for name in moved if ("expert" in name or "_linear" in name) and not name.endswith("bias")}
    assert of_experts and not any(torch.equal(moved[name], start[name]) for name in of_experts)
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    policy.model.eval()
    policy.model.set_attn_implementation("eager")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "best", attn_implementation="eager")
    torch.testing.assert_close(policy.model(tokens).logits, merged(tokens).logits, rtol=0, atol=1e-4)


def test_adapters_of_experts_get_a_gradient(experts, make_policy):
    policy = make_policy(start=experts[0], gradient_checkpointing=True)
    policy.model.set_attn_implementation("eager")
    policy.model(torch.tensor([[5, 6, 7, 8, 9]]), use_cache=False).logits.sum().backward()
    b = [layer.lora_B["default"].weight for layer in adapted_tensors(policy.model).values()]
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in b)


def test_in_bfloat16_frozen_experts_are_kept_in_it(experts, make_policy):
    folder, _ = experts
    policy = make_policy(start=folder, policy_dtype="bfloat16")
    for layer in adapted_tensors(policy.model).values():
        assert getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight")).dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in policy.parameters())


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "gate"])
def test_what_gets_no_adapter_is_refused_by_name(name, family_checkpoint, make_policy):
    folder = family_checkpoint("mixtral", **EXPERTS["mixtral"][0])
    with pytest.raises(ConfigError, match=rf"no matrix called \['{name}'\]; available: down_proj, gate_up_proj, k_proj"):
        make_policy(start=folder, lora=Lora(rank=2, alpha=2.0, matrices=["q_proj", name]))


# A router that is a linear layer; weights that are used past their layer; blocks that hold one weight together; matrices of a
# state-space layer in one tensor; what peft refuses; states that are kept between calls; Conv1D.
ODD = ["llama4_text", "jamba", "zamba2", "zamba", "nemotron_h", "recurrent_gemma", "gpt2"]


@pytest.mark.parametrize("family", ODD)
def test_whatever_gets_an_adapter_trains_with_it_and_shows_it_to_readers(family, make_policy, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path / "start")
    policy = make_policy(start=tmp_path / "start")
    adapted = {name.rpartition(".")[2] for name in adapted_tensors(policy.model)}
    assert adapted
    move(policy)
    folder = tmp_path / "merged"
    folder.mkdir()
    shutil.copy(tmp_path / "start" / "config.json", folder)
    save_file({name: weight.contiguous() for name, weight in policy.weights()}, folder / "model.safetensors", {"format": "pt"})
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = [5, 6, 7, 8, 9, 10, 11, 12]
    logits = plain(torch.tensor([tokens]), use_cache=False)[0][0, 2:-1]
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(tokens[3:])[:, None])[:, 0]
    torch.testing.assert_close(policy.score([tokens[:3]], [tokens[3:]])[0], expected.detach(), rtol=0, atol=1e-4)
    (micro,) = policy._micro_batches([tokens[:3]], [tokens[3:]], None)
    policy.scorer(micro, with_entropy=False)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in policy.parameters())
