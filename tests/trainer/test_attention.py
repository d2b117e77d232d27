"""Attention over packed groups: the numbers of one forward pass for each prompt + completion, with all that it computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Gemma2Config, GptOssConfig, Llama4TextConfig, LlamaConfig, Qwen2Config
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from sfpo.trainer.attention import ATTENTION, fits_varlen, packed_attention, varlen_attention
from sfpo.trainer.masks import GroupMask, PromptGroup, group_mask, packed
from sfpo.trainer.packing import micro_batches, varlen

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
        with pytest.raises(ValueError, match=f"does not support the arguments {named} of Module"):
            packed_attention(module, query, query, query, mask, **others)
    with pytest.raises(ValueError, match="Module does not pass on the mask"):
        packed_attention(module, query, query, query, None)


def by_definition(query, keys, values, scale):
    """One query [heads, d] over its keys [k, heads, d]."""
    return torch.stack([(keys[:, h] @ query[h] * scale).softmax(0) @ values[:, h] for h in range(len(query))])


def plain_row(query, key, value, groups, window, scale):
    """Sequence after sequence, token after token; shapes of packed_attention."""
    q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
    k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], 1) for one in (k, v))
    rows, start = [], 0
    for group in groups:
        prompt = list(range(start, start + group.prompt))
        rows += [by_definition(q[i], k[start : i + 1][-window:], v[start : i + 1][-window:], scale) for i in prompt]
        start += group.prompt
        for completion in group.completions:
            for i in range(start, start + completion):
                seen = [*prompt, *range(start, i + 1)][-window:]
                rows.append(by_definition(q[i], k[seen], v[seen], scale))
            start += completion
    return torch.stack(rows)[None]


def reference_varlen(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What the documentation of torch's varlen_attn says, token after token: the last query of a sequence sees its last key."""
    assert enable_gqa == (q.shape[1] != k.shape[1]) and window_size[1] == 0
    k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], 1) for one in (k, v))
    rows = []
    for start, end, first, last in zip(cu_seq_q, cu_seq_q[1:], cu_seq_k, cu_seq_k[1:], strict=False):
        assert end - start <= max_q and last - first <= max_k
        for i in range(start, end):
            own = last - (end - i)
            low = first if window_size[0] < 0 else max(first, own - window_size[0])
            rows.append(by_definition(q[i], k[low : own + 1], v[low : own + 1], scale))
    return torch.stack(rows)


@settings(max_examples=20, deadline=None)
@given(groups=groups, window=st.sampled_from([1, 3, 7, 99]), heads=st.sampled_from([(2, 2), (4, 2), (3, 1)]))
def test_by_segments_and_by_one_call_are_the_plain_computation(groups, window, heads):
    groups = [PromptGroup(prompt, completions) for prompt, completions in groups]
    tokens = sum(sum(group.segments()) for group in groups)
    generator = torch.Generator().manual_seed(tokens)
    tensors = [
        torch.randn(1, count, tokens, 4, dtype=torch.float64, generator=generator).requires_grad_()
        for count in (heads[0], heads[1], heads[1])
    ]
    with packed(groups, varlen(groups, CPU)):
        mask = group_mask(1, tokens, tokens, sliding_window_causal_mask_function(window))
    assert mask.window == window
    upstream = torch.randn(1, tokens, heads[0], 4, dtype=torch.float64, generator=generator)
    expected, *others = [
        [output, *torch.autograd.grad(output, tensors, upstream)]
        for output in (
            plain_row(*tensors, groups, window, 0.3),
            packed_attention(torch.nn.Module(), *tensors, mask, scaling=0.3)[0],
            varlen_attention(*tensors, mask, 0.3, torch.float64, reference_varlen),
        )
    ]
    for ours in others:
        for one, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


class Calls(TorchDispatchMode):
    """Counts the calls of the variable-length kernel."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.torch_attn._varlen_attn.default
        return function(*args, **(kwargs or {}))


def test_torch_takes_the_row_in_one_call():
    # On the meta device nothing is computed, but torch checks the arguments and tells what it would return.
    groups = [PromptGroup(2, [1, 2]), PromptGroup(1, [3])]
    shapes = ((4, torch.float32), (2, torch.float32), (2, torch.bfloat16))  # rotary embeddings leave float32
    given = [torch.empty(1, heads, 9, 16, device="meta", dtype=dtype, requires_grad=True) for heads, dtype in shapes]
    for window in (9, 3):
        mask = GroupMask(groups, varlen(groups, torch.device("meta")), window, None, "meta")
        with Calls() as calls:
            output = varlen_attention(*given, mask, None, torch.bfloat16)
        assert calls.count == 1 and output.shape == (1, 9, 4, 16) and output.dtype == torch.bfloat16
        gradients = torch.autograd.grad(output.sum(), given)
        assert [(one.shape, one.dtype) for one in gradients] == [(one.shape, one.dtype) for one in given]


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"compute": torch.float16}, True),
        ({"compute": torch.float32}, False),
        ({"width": 12}, False),
        ({"width": 256}, False),
        ({"window": None}, False),
        ({"capability": (7, 5)}, False),
        ({"softcap": 30.0}, False),
        ({"sinks": torch.zeros(4)}, False),
    ],
)
def test_which_layers_of_a_gpu_the_kernel_takes(monkeypatch, changes, fits):
    given = {"compute": torch.bfloat16, "width": 16, "window": 9, "softcap": None, "sinks": None} | changes
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: changes.get("capability", (9, 0)))
    groups = [PromptGroup(2, [1, 2]), PromptGroup(1, [3])]
    mask = GroupMask(groups, varlen(groups, CPU), given["window"], None, "cuda")
    with FakeTensorMode():  # tensors of a GPU that is not there
        query = torch.empty(1, 4, 9, given["width"], device="cuda", dtype=torch.float32)
        value = torch.empty(1, 2, 9, given["width"], device="cuda", dtype=given["compute"])
        assert fits_varlen(query, value, mask, given["softcap"], given["sinks"]) == fits
    query, value = torch.zeros(1, 4, 9, 16), torch.zeros(1, 2, 9, 16, dtype=torch.bfloat16)
    assert not fits_varlen(query, value, mask, None, None)  # on a CPU
