"""What is tried before a run starts: the fastest layout with the plain model's numbers is taken, faults are named."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, Gemma2Config, LlamaConfig, OPTConfig, PhimoeConfig, Qwen2Config

from sfpo.trainer import attention, canary, masks
from sfpo.trainer.canary import UnsupportedModel, choose, moved
from sfpo.trainer.packing import micro_batches
from sfpo.trainer.policy import Policy
from sfpo.trainer.scorer import Scorer
from tests.models.tiny_families import tiny_model

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}
SHAPE |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0}


def model_of(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def test_groups_come_first_and_nothing_is_disturbed():
    model = model_of(LlamaConfig(**SHAPE))
    before, state = [parameter.clone() for parameter in model.parameters()], torch.get_rng_state()
    choice = choose(model, "auto", seed=0)
    assert (choice.layout, choice.attention, choice.passed_over) == ("groups", attention.ATTENTION, [])
    assert torch.equal(torch.get_rng_state(), state)
    for parameter, same in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, same) and parameter.grad is None


def test_a_fault_of_packed_groups_is_seen_and_padded_rows_are_taken(monkeypatch):
    # As if windows were forgotten: every key before a query is seen.
    monkeypatch.setattr(masks, "_window_of", lambda function, longest, visible: longest)
    model = model_of(Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=9, layer_types=["sliding_attention"] * 2))
    choice = choose(model, "auto", seed=0)
    assert choice.layout == "padded" and "groups (packed_groups attention): log-probs differ by" in choice.passed_over[0]
    with pytest.raises(UnsupportedModel, match=r"Qwen2ForCausalLM: no packing matches(.|\n)*train.packing = 'groups'"):
        choose(model, "groups", seed=0)


def test_fused_attention_that_forgets_the_soft_cap_is_passed_over():
    config = Gemma2Config(**SHAPE, head_dim=8, attn_logit_softcapping=0.3, layer_types=["full_attention"] * 2)
    choice = choose(model_of(config), "padded", seed=0)
    assert choice.attention == "eager" and "padded (sdpa attention)" in choice.passed_over[0]


def test_a_model_that_sees_later_tokens_is_refused():
    with pytest.raises(UnsupportedModel, match=r"BertLMHeadModel: .*depends on the tokens after it"):
        choose(model_of(BertConfig(**SHAPE, is_decoder=False)), "auto", seed=0)


@pytest.mark.parametrize("kind", ["opt", "phimoe"])
def test_dropout_and_jitter_are_off(kind):
    if kind == "opt":
        config = OPTConfig(**SHAPE, ffn_dim=48, dropout=0.3, attention_dropout=0.3, layerdrop=0.3, word_embed_proj_dim=32)
    else:
        config = PhimoeConfig(**SHAPE, num_local_experts=2, input_jitter_noise=0.3, attention_dropout=0.3)
    model = model_of(config).train()
    choice = choose(model, "auto", seed=0)
    scorer = Scorer(model, torch.float32, 1.0)
    scorer.checkpoint_layers()
    found = choice.found
    (micro,) = micro_batches(found.prompts, found.completions, 999, torch.device("cpu"), layout=choice.layout)
    logprobs, _ = scorer(micro, with_entropy=False)
    torch.testing.assert_close(logprobs, found.logprobs[micro.tokens], rtol=0, atol=1e-4)
    logprobs.sum().backward()  # the layers once more, with the same numbers


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_rotary_embeddings_are_those_of_each_sequence(rope):
    # 16 tokens were the original length: of sequences of 8, 13 and 28 tokens one is longer, and goes through alone.
    parameters = {"rope_type": rope, "rope_theta": 10000.0, "factor": 4.0}
    if rope == "longrope":
        parameters |= {"original_max_position_embeddings": 16, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    config = LlamaConfig(**SHAPE | {"max_position_embeddings": 16}, head_dim=8, rope_parameters=parameters)
    scorer = Scorer(model_of(config), torch.float32, 1.0)
    prompts, completions = [[5, 6, 7, 8, 9]] * 3, [[10, 11, 12], [13] * 23, [14] * 8]
    scorer.model.set_attn_implementation(attention.ATTENTION)
    together = torch.zeros(34)
    for micro in micro_batches(prompts, completions, 999, torch.device("cpu"), alone_from=scorer.alone_from):
        together[micro.tokens] = scorer(micro, with_entropy=False)[0].detach()
    expected = []
    for prompt, completion in zip(prompts, completions, strict=True):
        fresh = model_of(config).eval()
        logits = fresh(input_ids=torch.tensor([prompt + completion])).logits[0, 4:-1]
        expected.append(logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0].detach())
    assert scorer.alone_from == 16
    torch.testing.assert_close(together, torch.cat(expected), rtol=0, atol=1e-5)


def test_weights_move_and_come_back_to_the_bit():
    weight, bias = torch.randn(20, 3), torch.randn(5)
    before = weight.clone(), bias.clone()
    with moved([weight, bias]):
        # Rows 0, 8 and 16 of 20, and entries 0 of 5: w becomes 1.5 w + 0.01.
        assert [row for row in range(20) if not torch.equal(weight[row], before[0][row])] == [0, 8, 16]
        torch.testing.assert_close(bias[0], 1.5 * before[1][0] + 0.01)
    assert torch.equal(weight, before[0]) and torch.equal(bias, before[1])


def test_a_policy_that_trains_other_numbers_is_refused(checkpoint, params, monkeypatch):
    tiny = params.suites["tiny"]
    prove = canary.prove
    monkeypatch.setattr("sfpo.trainer.policy.prove", lambda found, logprobs, *others: prove(found, logprobs + 0.01, *others))
    execution = tiny.execution.model_copy(update={"gradient_checkpointing": True})
    with pytest.raises(UnsupportedModel, match=r"Qwen2ForCausalLM: as the run trains it .* differ by 0.01 nats"):
        Policy(checkpoint, params.objectives["grpo"], tiny.train, execution, 32)


WRONG = {
    "no soft cap": ("gemma2", {"attn_logit_softcapping": 2.0}, {"attn_logit_softcapping": None}),
    "no final soft cap": ("gemma2", {"final_logit_softcapping": 5.0}, {"final_logit_softcapping": None}),
    "no window": ("mistral", {"sliding_window": 6}, {"sliding_window": 4096}),
    "no window where layers differ": ("olmo3", {"sliding_window": 6}, {"sliding_window": 4096}),
    "output scaled by 1.1": ("cohere", {"logit_scale": 0.0625}, {"logit_scale": 0.06875}),
    "output divided by 2.7 instead of 3": ("granite", {"logits_scaling": 3.0}, {"logits_scaling": 2.7}),
}


@pytest.mark.parametrize("fault", WRONG)
def test_in_bfloat16_a_right_policy_passes_and_a_wrong_one_is_refused(fault, params, tmp_path):
    family, right, wrong = WRONG[fault]
    tiny = params.suites["tiny"]
    train = tiny.train.model_copy(update={"policy_dtype": "bfloat16"})
    model = tiny_model(family, **right)
    policies = []
    for name, changes in (("right", {}), ("wrong", wrong)):
        for key, value in changes.items():
            setattr(model.config, key, value)
        model.save_pretrained(tmp_path / name)
        policies.append(Policy(tmp_path / name, params.objectives["grpo"], train, tiny.execution, 32))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "right", dtype=torch.float32)
    found = choose(plain, "auto", seed=0, compute=torch.bfloat16).found
    assert canary.prove(found, *policies[0]._scores_and_gradients(found), plain).within(found.rounding)
    with pytest.raises(UnsupportedModel, match=r"as the run trains it .*; rounding alone causes: log-probs differ by"):
        canary.prove(found, *policies[1]._scores_and_gradients(found), plain)


def test_the_second_look_is_left_out_where_it_is_the_first(checkpoint, params, monkeypatch):
    tiny = params.suites["tiny"]
    monkeypatch.setattr(Policy, "_scores_and_gradients", lambda *_: pytest.fail("computed again"))
    policy = Policy(checkpoint, params.objectives["grpo"], tiny.train, tiny.execution, 32)
    assert policy.canary["as_trained"]["logprob_mean"] == policy.canary["logprob_mean"]
