"""Each live engine against the policy in torch: same weights, same log-probs, also after a sync."""

import gc
import json
import shutil

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from sfpo.config import Sampling
from sfpo.rollouts import make_engine
from sfpo.rollouts.engine import EngineFailure, Request, stop_token_ids
from sfpo.rollouts.sampler_gap import sampler_gap
from sfpo.rollouts.transformers_engine import SeededSampler, own_attention
from sfpo.seeding import seed_of
from sfpo.trainer.policy import Policy

pytestmark = pytest.mark.engine

PROBLEMS = ["12+30=?", "What is 7 - 5?", "abc", "1+1=?"]


@pytest.fixture(scope="module")
def transformers_engine(checkpoint, limits, params):
    tiny = params.suites["tiny"]
    return make_engine(checkpoint, limits, tiny.sampler.model_copy(update={"library": "transformers"}), tiny.execution.engine)


@pytest.fixture(params=["vllm", "transformers"])
def engine(request):
    """Every test here holds for both; the one on vLLM is that of all tests."""
    return request.getfixturevalue("vllm_engine" if request.param == "vllm" else "transformers_engine")


@pytest.fixture
def policy(checkpoint, params, limits):
    tiny = params.suites["tiny"]
    return Policy(checkpoint, params.objectives["grpo"], tiny.train, tiny.execution, limits.max_completion_tokens)


def requests(engine, samples: int = 3) -> list[Request]:
    from sfpo.data.prompts import render

    return [
        Request(render(engine.tokenizer, "{problem}", problem), seed_of(0, problem, sample))
        for problem in PROBLEMS
        for sample in range(samples)
    ]


def gap_to(policy, engine):
    asked = requests(engine)
    completions = engine.generate(asked, Sampling())
    logprobs, _ = policy.score([request.prompt_ids for request in asked], [c.token_ids for c in completions])
    return sampler_gap(logprobs, torch.tensor([value for c in completions for value in c.logprobs]))


def test_sampling_logprobs_are_the_policys(engine, policy):
    engine.load_weights(policy.weights())
    assert gap_to(policy, engine).max < 1e-4  # float32 rounding


def test_after_a_sync_the_engine_samples_from_the_new_weights(engine, policy):
    engine.load_weights(policy.weights())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    assert gap_to(policy, engine).max > 0.05  # stale weights are seen
    engine.load_weights(policy.weights())
    assert gap_to(policy, engine).max < 1e-4


def test_a_completion_depends_on_its_seed_and_not_on_its_neighbours(engine, policy):
    engine.load_weights(policy.weights())
    asked = requests(engine)
    together = engine.generate(asked, Sampling())
    alone = engine.generate(asked[5:6], Sampling())
    assert alone[0].token_ids == together[5].token_ids
    assert len({tuple(completion.token_ids) for completion in together}) > len(PROBLEMS)


def test_sampling_leaves_the_trainers_generators_alone_or_unused(engine, policy):
    # vLLM may move torch's global state; two calls with the same seeds must not care.
    engine.load_weights(policy.weights())
    torch.manual_seed(1)
    first = engine.generate(requests(engine), Sampling())
    torch.manual_seed(2)
    assert [c.token_ids for c in engine.generate(requests(engine), Sampling())] == [c.token_ids for c in first]


def test_completions_end_with_the_stop_token_or_are_truncated(engine, policy, limits, checkpoint):
    engine.load_weights(policy.weights())
    stops = stop_token_ids(checkpoint)
    completions = engine.generate(requests(engine, samples=64), Sampling())
    assert {completion.truncated for completion in completions} == {True, False}
    for completion in completions:
        assert len(completion.logprobs) == len(completion.token_ids)
        if completion.truncated:
            assert len(completion.token_ids) == limits.max_completion_tokens
        else:
            assert completion.token_ids[-1] in stops
            assert "<|im_end|>" not in completion.text


def test_a_checkpoint_without_a_stop_token_is_refused(tmp_path):
    (tmp_path / "generation_config.json").write_text("{}")
    with pytest.raises(ValueError, match="has no eos_token_id"):
        stop_token_ids(tmp_path)


def test_another_checkpoint_is_loaded_whole(engine, policy, checkpoint, tmp_path):
    engine.load_checkpoint(checkpoint)  # the policy's own
    assert gap_to(policy, engine).max < 1e-4


def test_a_narrow_nucleus_leaves_the_likeliest_token(engine, policy):
    engine.load_weights(policy.weights())
    completions = engine.generate(requests(engine), Sampling(top_p=1e-6))
    for problem in range(len(PROBLEMS)):  # whatever the seed; its renormalized chance is 1
        assert len({tuple(c.token_ids) for c in completions[3 * problem : 3 * problem + 3]}) == 1
    assert all(abs(value) < 1e-6 for completion in completions for value in completion.logprobs)


def test_the_seeded_sampler_draws_each_token_as_often_as_it_is_likely():
    # Chances 1/2, 1/4, 1/8, 1/8 at temperature 1; 4,000 rows: a share is within 4 standard errors, 4 * sqrt(1/4 / 4000) = 0.03.
    chances = torch.tensor([0.5, 0.25, 0.125, 0.125])
    sampler = SeededSampler(list(range(4000)), Sampling())
    left = sampler(torch.zeros(4000, 0, dtype=torch.long), chances.log().expand(4000, 4))
    drawn = left.argmax(-1)
    assert (left.isfinite().sum(-1) == 1).all()
    assert (drawn.bincount(minlength=4) / 4000 - chances).abs().max() < 0.03
    assert sampler.logprobs[0].allclose(chances.log()[drawn])


def test_each_completion_is_handed_over_as_soon_as_it_is_there(engine, policy):
    engine.load_weights(policy.weights())
    seen = []
    completions = engine.generate(
        requests(engine, samples=64), Sampling(), finished=lambda place, completion: seen.append((place, completion))
    )
    assert dict(seen) == dict(enumerate(completions)) and len(seen) == len(completions)
    if hasattr(engine, "_llm"):  # the shorter ones first, whatever their places
        lengths = [len(completion.token_ids) for _, completion in seen]
        assert lengths == sorted(lengths) and len(set(lengths)) > 1


def test_a_failed_engine_is_replaced_by_one_that_samples_the_same(engine, policy, monkeypatch):
    engine.load_weights(policy.weights())
    asked = requests(engine)
    before = engine.generate(asked, Sampling())

    def fail(*_, **__):
        raise RuntimeError("device lost")

    with monkeypatch.context() as patch:
        patch.setattr(*((engine._llm.llm_engine, "step") if hasattr(engine, "_llm") else (engine._model, "generate")), fail)
        with pytest.raises(EngineFailure, match=r"(vLLM|transformers) failed on 12 completions: RuntimeError: device lost"):
            engine.generate(asked, Sampling())
    engine.restart(policy.weights())
    gc.collect()  # nothing of the failed engine is left that could take the fresh one's groups with it
    assert engine.generate(asked, Sampling()) == before


def test_what_a_broken_off_call_left_is_not_taken_for_another_calls(engine, policy):
    engine.load_weights(policy.weights())
    asked = requests(engine)
    before = engine.generate(asked, Sampling())

    def broken(place, completion):
        raise ValueError("the grader died")

    with pytest.raises(ValueError, match="the grader died"):
        engine.generate(list(reversed(asked)), Sampling(), finished=broken)
    assert engine.generate(asked, Sampling()) == before


def test_a_gpus_engine_cuts_long_prompts_and_a_cpus_does_not(limits, params):
    from sfpo.config import Engine, ModelLimits, Sampler
    from sfpo.ranks import Ranks
    from sfpo.rollouts.vllm_engine import llm_arguments

    long = ModelLimits(max_prompt_tokens=2048, max_completion_tokens=22528)  # 24576 tokens of context, 3 times 8192
    settings, sampler = Engine(max_sequences=512, gpu_memory_utilization=0.5, tensor_parallel=2), Sampler(dtype="bfloat16")
    gpu = llm_arguments("m", long, sampler, settings, Ranks(3, 8, object()), on_gpu=True)
    cpu = llm_arguments("m", long, sampler, settings, Ranks(), on_gpu=False)
    assert gpu["enable_chunked_prefill"] and gpu["max_num_batched_tokens"] == 8192
    assert not cpu["enable_chunked_prefill"] and cpu["max_num_batched_tokens"] == 24576
    assert gpu["enable_sleep_mode"] and gpu["gpu_memory_utilization"] == 0.5 and "kv_cache_memory_bytes" not in gpu
    assert cpu["kv_cache_memory_bytes"] == 2**30 and "enable_sleep_mode" not in cpu
    assert gpu["kernel_config"] == {"enable_flashinfer_autotune": False}
    assert gpu["distributed_executor_backend"] == "external_launcher" and cpu["distributed_executor_backend"] is None
    assert gpu["tensor_parallel_size"] == 2 and gpu["max_num_seqs"] == 512


ASKED_FOR = {
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(20, 250)),
    "begin_suppress_tokens": list(range(20, 250)),
    "bad_words_ids": [[token] for token in range(20, 250)],
    "min_new_tokens": 40,
    "min_length": 200,
    "num_beams": 4,
    "num_return_sequences": 2,
    "forced_bos_token_id": 30,
    "forced_eos_token_id": 30,
    "temperature": 0.1,
    "top_k": 1,
    "top_p": 0.1,
    "min_p": 0.9,
    "typical_p": 0.1,
    "exponential_decay_length_penalty": (1, 5.0),
    "sequence_bias": [[[30], 10.0]],
    "watermarking_config": {"greenlist_ratio": 0.5, "bias": 10.0},
    "guidance_scale": 3.0,
    "do_sample": True,
    "max_length": 5,
    "stop_strings": ["1"],
    "penalty_alpha": 0.6,
    "prompt_lookup_num_tokens": 3,
    "renormalize_logits": True,
    "cache_implementation": "static",
    "use_cache": False,
}
"""What a generation_config.json can ask for beside the tokens that end a completion: none of it is the policy's."""


def test_whatever_generation_config_asks_for_the_policy_alone_is_sampled(
    transformers_engine, policy, checkpoint, limits, params, tmp_path
):
    asking = shutil.copytree(checkpoint, tmp_path / "asking")
    plain = json.loads((checkpoint / "generation_config.json").read_text())
    (asking / "generation_config.json").write_text(json.dumps({**plain, **ASKED_FOR}))
    tiny = params.suites["tiny"]
    engine = make_engine(asking, limits, tiny.sampler.model_copy(update={"library": "transformers"}), tiny.execution.engine)
    for load in (lambda one: None, lambda one: one.load_weights(policy.weights()), lambda one: one.load_checkpoint(asking)):
        load(engine)
        transformers_engine.load_weights(policy.weights())
        asked = requests(engine)
        assert engine.generate(asked, Sampling()) == transformers_engine.generate(asked, Sampling())


@pytest.mark.parametrize(
    ("family", "settings", "attention"),
    [
        ("llama", {}, "sdpa"),
        ("gemma2", {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 16}, "eager"),  # torch's kernel has no soft cap
        ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}, "eager"),  # nor sinks
        ("mistral", {"sliding_window": 4}, "sdpa"),  # the mask has the window
    ],
)
def test_the_transformers_engine_computes_what_the_model_asks_of_attention(
    family, settings, attention, family_checkpoint, limits, params
):
    folder = family_checkpoint(family, **settings)
    tiny = params.suites["tiny"]
    sampler = tiny.sampler.model_copy(update={"library": "transformers"})
    engine = make_engine(folder, limits, sampler, tiny.execution.engine)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    assert own_attention(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)) == attention
    asked = requests(engine, samples=1)
    for request, completion in zip(asked, engine.generate(asked, Sampling()), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([request.prompt_ids + completion.token_ids])).logits[
                0, len(request.prompt_ids) - 1 : -1
            ]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-4)


def test_vllm_changes_no_class_that_the_policy_is_of(family_checkpoint):
    from sfpo.rollouts.vllm_engine import set_own_class_apart

    folder = family_checkpoint("olmo2")
    policys = type(AutoModelForCausalLM.from_pretrained(folder).model)
    set_own_class_apart(folder)
    vllms = type(AutoModel.from_pretrained(folder))
    assert issubclass(vllms, policys) and vllms is not policys
    set_own_class_apart(folder)  # a second engine of the process has the first one's
    assert type(AutoModel.from_pretrained(folder)) is vllms
    assert type(AutoModelForCausalLM.from_pretrained(folder).model) is policys
