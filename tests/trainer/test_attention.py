"""Attention over packed groups: the numbers of one forward pass for each prompt + completion, with all that it computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma2Config, GptOssConfig, Llama4TextConfig, LlamaConfig, Qwen2Config
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from sfpo.trainer.attention import ATTENTION, PromptGroup, group_mask, packed, packed_attention
from sfpo.trainer.packing import micro_batches

CPU = torch.device("cpu")
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
SHAPE |= {"num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 128, "pad_token_id": 0}
WINDOW_AND_ALL = ["sliding_attention", "full_attention"]
CHUNKS_AND_ALL = ["chunked_attention", "full_attention"]
CONFIGS = {
    "qwen2": Qwen2Config(**SHAPE),
    "llama": LlamaConfig(**SHAPE),
    "window": Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=4, layer_types=WINDOW_AND_ALL),
    "soft cap": Gemma2Config(**SHAPE, attn_logit_softcapping=0.5, sliding_window=4, layer_types=WINDOW_AND_ALL),
    "sinks": GptOssConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2, sliding_window=4, layer_types=WINDOW_AND_ALL),
    "chunks": Llama4TextConfig(
        **SHAPE, num_local_experts=2, intermediate_size_mlp=48, attention_chunk_size=4, layer_types=CHUNKS_AND_ALL
    ),
}


def test_masks_by_hand():
    # Two completions, of 1 and 2 tokens, of a prompt of 2; then a plain sequence of 1 + 3. A window of 3 tokens.
    groups = [PromptGroup(2, [1, 2]), PromptGroup(1, [3])]
    with packed(groups):
        causal = group_mask(1, 9, 9, causal_mask_function)
        window = group_mask(1, 9, 9, sliding_window_causal_mask_function(3))
    shown = lambda masks: [None if mask is None else mask.int().tolist() for mask in masks]  # noqa: E731
    assert shown(causal.masks[0]) == [None, [[1, 1, 1]], [[1, 1, 1, 0], [1, 1, 1, 1]]] and shown(causal.masks[1]) == [None]
    # The last query of the second completion is at position 3 and sees positions 1, 2 and 3.
    assert shown(window.masks[0]) == [[[1, 0], [1, 1]], [[1, 1, 1]], [[1, 1, 1, 0], [0, 1, 1, 1]]]
    assert shown(window.masks[1]) == [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]]]


@pytest.fixture(scope="module", params=CONFIGS)
def models(request):
    """The same random weights under transformers' own attention and under the packed one; grouped key heads."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(CONFIGS[request.param], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    packed = AutoModelForCausalLM.from_config(CONFIGS[request.param], attn_implementation=ATTENTION).eval()
    packed.load_state_dict(plain.state_dict())
    return plain, packed


groups = st.lists(st.tuples(st.integers(1, 6), st.lists(st.integers(1, 9), min_size=1, max_size=4)), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None)
@given(groups=groups, max_tokens=st.integers(1, 80), seed=st.integers(0, 99))
def test_packed_is_one_by_one_in_loss_and_gradients(models, groups, max_tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda length: torch.randint(50, (length,), generator=generator).tolist()  # noqa: E731
    prompts, completions = [], []
    for prompt_length, lengths in groups:
        prompt = draw(prompt_length)
        prompts += [prompt] * len(lengths)
        completions += [draw(length) for length in lengths]
    total = sum(map(len, completions))
    weights = torch.linspace(-1, 1, total)
    plain, ours = models

    expected = []
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = plain(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected.append(logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0])
    expected = torch.cat(expected)
    theirs = torch.autograd.grad((weights * expected).sum(), list(plain.parameters()), materialize_grads=True)

    seen, sums = torch.full((total,), torch.nan), [torch.zeros_like(parameter) for parameter in ours.parameters()]
    for micro in micro_batches(prompts, completions, max_tokens, CPU):
        assert micro.input_ids.numel() <= max_tokens or len(micro.rows) == 1
        with packed(micro.groups):
            logits = ours(
                input_ids=micro.input_ids,
                position_ids=micro.position_ids,
                attention_mask=torch.ones_like(micro.input_ids),
                use_cache=False,
            ).logits[0, micro.positions]
        logprobs = logits.log_softmax(-1).gather(-1, micro.targets[:, None])[:, 0]
        assert seen[micro.tokens].isnan().all()  # no token twice
        seen[micro.tokens] = logprobs.detach()
        loss = (weights[micro.tokens] * logprobs).sum()
        gradients = torch.autograd.grad(loss, list(ours.parameters()), materialize_grads=True)
        for total_gradient, gradient in zip(sums, gradients, strict=True):
            total_gradient += gradient
    torch.testing.assert_close(seen, expected.detach(), rtol=0, atol=1e-5)
    for one, other in zip(sums, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_what_attention_does_not_know_is_named():
    query = torch.zeros(1, 1, 3, 4)
    module = torch.nn.Module()
    mask = group_mask(1, 3, 3, causal_mask_function)
    packed_attention(module, query, query, query, mask, position_ids=None, sliding_window=2, output_attentions=False)
    for others, named in (
        ({"position_bias": query}, "position_bias"),
        ({"dropout": 0.1}, "dropout"),
        ({"is_causal": False}, "is_causal"),
    ):
        with pytest.raises(ValueError, match=f"does not know what Module asks for by {named}"):
            packed_attention(module, query, query, query, mask, **others)
    with pytest.raises(ValueError, match="Module does not pass on the mask"):
        packed_attention(module, query, query, query, None)


def test_a_mask_is_made_for_the_row_alone():
    with packed([PromptGroup(2, [1, 2])]), pytest.raises(ValueError, match="takes 5 tokens and no padding, not 6 queries"):
        group_mask(1, 6, 6, causal_mask_function)
    with pytest.raises(ValueError, match="no padding"):
        group_mask(1, 3, 3, causal_mask_function, attention_mask=torch.tensor([[True, True, False]]))
