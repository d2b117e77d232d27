"""Packed micro-batches: every completion token once, and the numbers of one forward pass for each prompt + completion."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from sfpo.trainer.packing import ATTENTION, deal, micro_batches

CPU = torch.device("cpu")


def test_one_micro_batch_by_hand():
    # Two completions of prompt 1 2, one of prompt 4.
    (micro,) = micro_batches([[1, 2], [1, 2], [4]], [[3], [8, 9], [5, 6, 7]], max_tokens=99, device=CPU)
    assert micro.input_ids.tolist() == [[1, 2, 3, 8, 9, 4, 5, 6, 7]]
    assert micro.position_ids.tolist() == [[0, 1, 2, 2, 3, 0, 1, 2, 3]]
    # 3 and 8 are both predicted by the prompt's 2 (position 1), 9 by 8 (position 3); 5, 6, 7 by 4, 5, 6 (5, 6, 7).
    assert micro.positions.tolist() == [1, 1, 3, 5, 6, 7]
    assert micro.targets.tolist() == [3, 8, 9, 5, 6, 7]
    assert micro.rows == [0, 1, 2] and micro.tokens.tolist() == [0, 1, 2, 3, 4, 5]
    first, second = micro.families
    assert (first.prompt, first.completions, second.prompt, second.completions) == (2, [1, 2], 1, [3])
    assert [mask.int().tolist() for mask in first.masks] == [[[1, 1, 1]], [[1, 1, 1, 0], [1, 1, 1, 1]]] and not second.masks


def test_a_prompt_counts_once_and_a_long_sequence_stands_alone():
    # Budget 8: prompt 3 + 2 + 2 = 7 fit, the third completion starts anew with its prompt; 3 + 9 is over the budget.
    sizes = [len(m.rows) for m in micro_batches([[1, 2, 3]] * 4, [[4] * 2, [4] * 2, [4] * 2, [4] * 9], 8, CPU)]
    assert sizes == [2, 1, 1]


def test_left_out_rows_are_not_in_it():
    (micro,) = micro_batches([[1], [1], [2]], [[3], [4, 5], [6]], 99, CPU, rows=[1, 2])
    assert micro.input_ids.tolist() == [[1, 4, 5, 2, 6]] and micro.tokens.tolist() == [1, 2, 3] and micro.rows == [1, 2]


def test_the_longest_are_dealt_first_each_to_the_shortest_share():
    # 9 to the first, 7 to the second, 5 to the second (12), 4 to the first (13), 3 to the second (15), 1 to the first (14).
    assert deal([4, 9, 1, 7, 3, 5], 2) == [[0, 1, 2], [3, 4, 5]]
    assert deal([4, 9, 1], 1) == [[0, 1, 2]] and deal([5], 3) == [[0], [], []]


def test_ranks_share_the_rows_group_by_group_in_as_many_micro_batches_each():
    # Groups of 2 + 2, 1 + 9 and 1 + 1 tokens: rank 0 takes the second, rank 1 the others, in two parts of at most 5 tokens.
    prompts, completions = [[1, 2], [1, 2], [3], [4]], [[5], [6], [7] * 9, [8]]
    first, second = (list(micro_batches(prompts, completions, 5, CPU, rank=rank, ranks=2)) for rank in (0, 1))
    assert [micro.rows for micro in first] == [[2], []] and [micro.rows for micro in second] == [[0, 1], [3]]
    empty = first[1]
    assert empty.input_ids.shape == (1, 1) and len(empty.positions) == len(empty.targets) == len(empty.tokens) == 0


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def models(request):
    """The same random weights under transformers' own attention and under the packed one; grouped key heads."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 128}
    config = {"qwen2": Qwen2Config, "llama": LlamaConfig}[request.param]
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config(**shape), attn_implementation="sdpa")
    packed = AutoModelForCausalLM.from_config(config(**shape), attn_implementation=ATTENTION)
    packed.load_state_dict(plain.state_dict())
    return plain, packed


families = st.lists(st.tuples(st.integers(1, 6), st.lists(st.integers(1, 9), min_size=1, max_size=4)), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(families=families, max_tokens=st.integers(1, 80), seed=st.integers(0, 99))
def test_packed_is_one_by_one_in_loss_and_gradients(models, families, max_tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda length: torch.randint(50, (length,), generator=generator).tolist()  # noqa: E731
    prompts, completions = [], []
    for prompt_length, lengths in families:
        prompt = draw(prompt_length)
        prompts += [prompt] * len(lengths)
        completions += [draw(length) for length in lengths]
    total = sum(map(len, completions))
    weights = torch.linspace(-1, 1, total)
    plain, packed = models

    expected = []
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = plain(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected.append(logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0])
    expected = torch.cat(expected)
    theirs = torch.autograd.grad((weights * expected).sum(), list(plain.parameters()))

    seen, ours = torch.full((total,), torch.nan), [torch.zeros_like(parameter) for parameter in packed.parameters()]
    for micro in micro_batches(prompts, completions, max_tokens, CPU):
        assert micro.input_ids.numel() <= max_tokens or len(micro.rows) == 1
        hidden = packed.base_model(
            input_ids=micro.input_ids, position_ids=micro.position_ids, families=micro.families, use_cache=False
        ).last_hidden_state[0, micro.positions]
        logprobs = packed.lm_head(hidden).log_softmax(-1).gather(-1, micro.targets[:, None])[:, 0]
        assert seen[micro.tokens].isnan().all()  # no token twice
        seen[micro.tokens] = logprobs.detach()
        for sums, gradient in zip(
            ours, torch.autograd.grad((weights[micro.tokens] * logprobs).sum(), list(packed.parameters())), strict=True
        ):
            sums += gradient
    torch.testing.assert_close(seen, expected.detach(), rtol=0, atol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_short_sliding_window_is_refused():
    config = Qwen2Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
    )
    config.use_sliding_window, config.sliding_window, config.layer_types = True, 4, ["sliding_attention"]
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    (micro,) = micro_batches([[1, 2, 3]], [[4, 5]], 99, CPU)
    with pytest.raises(ValueError, match=r"sliding window attention \(4 tokens\) under a sequence of 5"):
        model.base_model(input_ids=micro.input_ids, position_ids=micro.position_ids, families=micro.families, use_cache=False)
