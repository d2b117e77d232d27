"""Planned memory against counts by hand, and against what autograd really keeps."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from sfpo.config import Engine, Execution, Lora, ModelLimits, Sampler, load_params
from sfpo.plan.kept import Packed, kept_by
from sfpo.plan.memory import OUTSIDE, Job, engine_weights, filled, one_sequence, phases, total, training
from sfpo.plan.shapes import shape_of
from sfpo.trainer.packing import micro_batches
from sfpo.trainer.policy import Policy

SIZES = {
    "hidden_size": 8,
    "intermediate_size": 10,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 128,
}
QWEN2 = {**SIZES, "model_type": "qwen2", "tie_word_embeddings": True}
TINY = load_params().suites["tiny"]


def job(config=QWEN2, limits=(4, 6), snapshots=0, device="cpu", ranks=1, dtype="bfloat16", **changes) -> Job:
    """``changes`` are of ``train`` or of ``execution``; ``dtype`` is the engine's."""
    of_execution = {key: value for key, value in changes.items() if key in Execution.model_fields}
    of_train = {key: value for key, value in changes.items() if key not in of_execution}
    counts = {"mini_batch_prompts": 2, "completions_per_prompt": 2, **of_train}
    return Job(
        shape=shape_of(config, "here"),
        train=TINY.train.model_copy(update=counts),
        execution=TINY.execution.model_copy(update={"micro_batch_tokens": 16, "engine": Engine(), **of_execution}),
        sampler=Sampler(dtype=dtype),
        limits=ModelLimits(max_prompt_tokens=limits[0], max_completion_tokens=limits[1]),
        snapshots=snapshots,
        device=device,
        ranks=ranks,
    )


def test_a_micro_batch_is_filled_with_full_lengths():
    def groups(tokens: int, ranks: int = 1, **train):
        one = job(micro_batch_tokens=tokens, **train)
        packed = filled(replace(one, ranks=ranks))
        return packed.groups, packed.is_whole

    assert groups(16) == ([(4, [6, 6])], False)
    assert groups(19) == ([(4, [6, 6])], False)  # 3 are left, too few for a prompt
    assert groups(24) == ([(4, [6, 6]), (4, [4])], False)
    assert groups(100) == ([(4, [6, 6]), (4, [6, 6])], True)  # the whole mini-batch
    assert groups(1) == ([(4, [6])], False)  # one completion with its prompt always fits
    assert groups(100, ranks=2) == ([(4, [6, 6])], True)  # 4 completions, 2 on each rank


def test_parts_by_hand():
    # QWEN2: a layer has 448 weights in products and 464 in all; tied embeddings 160, a norm of 8: 3 x 464 + 168 = 1560 weights.
    # 16 tokens, 12 of them in 2 completions of 6 after a prompt of 4: 2 x (4 + 6) = 20 masked keys, 2 x 6 x 10 = 120 entries.
    # A layer keeps of a token: 6 x 8 widths, 5 x 8 heads, 4 x 10 inside = 128 floats, 2 root mean squares, 4 logarithms: 134;
    # 16 x 134 = 2144. Beside: 2 x 20 x 8 = 320 copied keys and values, 120 of masks: 2584 floats.
    # After the layers: 2 x 8 + 1 of the norm, 2 x 2 of angles, an id of 8 bytes: 16 x 23 = 368 floats; 120 bytes of masks.
    # 12 predictions of 8.
    of_phases = {phase: {part: size / 4 for part, size in parts.items()} for phase, parts in training(job(snapshots=1)).items()}
    held = {"weights": 1560, "optimizer": 3120, "snapshot": 1560}
    assert of_phases["forward"] == {**held, "gradients": 1560, "compute copies": 0, "activations": 3 * 2584 + 368 + 30}
    # The whole vocabulary fits into one slice: 12 x 20 logits, twice; gradients of 12 x 8 hidden values and a product of them.
    assert of_phases["log-probs"] == {
        **held,
        "gradients": 1560 + 160,
        "compute copies": 0,
        "activations": 3 * 2584 + 368 + 30 + 96,
        "log-prob chunks": 480 + 192,
    }
    # The tied output layer's gradient waits (160); gradients of gate and up 2 x 16 x 10, of the layer's input 16 x 8.
    assert of_phases["backward"]["gradients"] == 1560 + 160
    assert of_phases["backward"]["activations"] == 3 * 2584 + 368 + 30 + 320 + 128
    assert of_phases["embeddings"] == {**held, "gradients": 1560 + 2 * 160, "compute copies": 0}


def test_checkpointing_keeps_the_input_of_each_layer_and_one_layer():
    parts = training(job(gradient_checkpointing=True))["forward"]
    assert parts["activations"] / 4 == 3 * 16 * 8 + 2584 + 368 + 30


def test_a_whole_mini_batch_in_one_micro_batch_starts_without_gradients():
    assert training(job(micro_batch_tokens=100))["forward"]["gradients"] == 0


def test_under_bfloat16_the_layers_matrices_are_copied():
    plain, checkpointing = (
        training(job(policy_dtype="bfloat16", gradient_checkpointing=value)) for value in (False, True)
    )  # 448 weights of 2 bytes in each of 3 layers
    assert [plain[phase]["compute copies"] for phase in ("forward", "log-probs", "backward")] == [2688, 2688, 2688]
    assert [checkpointing[phase]["compute copies"] for phase in ("forward", "log-probs", "backward")] == [2688, 0, 896]


def test_on_two_ranks_what_is_sharded_is_half_and_what_computes_is_whole():
    one = job(snapshots=1, micro_batch_tokens=10)
    alone, sharded = training(one)["backward"], training(replace(one, ranks=2))["backward"]
    for part in ("weights", "optimizer", "snapshot"):
        assert sharded[part] == alone[part] / 2
    assert sharded["activations"] == alone["activations"]
    assert sharded["compute copies"] == 4 * (168 + 2 * 464)  # embeddings and norm; a layer and the next
    assert sharded["gradients"] == 4 * (780 + 160) + 464 * 8  # a layer's own and what is sent


def test_the_engine_takes_its_share_of_a_gpu():
    # bfloat16 weights: 3120 bytes. A token's keys and values: 2 x 3 layers x 4 x 2 bytes = 48; of 10 tokens 480.
    one = job(device="cuda", engine=Engine(gpu_memory_utilization=0.5))
    awake = phases(one, 100_000)["generation"]
    of_engine = {"engine weights": 3120, "KV cache": 50_000 - 3120}
    assert awake == {"weights": 6240, "optimizer": 12480, "outside torch": OUTSIDE["context"], **of_engine}
    assert one_sequence(one) == 480 == phases(one, 6500)["generation"]["KV cache"]
    assert phases(job(engine=Engine(kv_cache_gib=0.5), dtype="float32"), 0)["forward"]["engine weights"] == 6240


def test_a_gpu_holds_more_than_tensors():
    context, nccl, graphs = (OUTSIDE[part] for part in ("context", "NCCL", "CUDA graphs"))
    alone, several = job(device="cuda"), job(device="cuda", ranks=2)
    eager = job(device="cuda", ranks=2, engine=Engine(enforce_eager=True))
    assert "outside torch" not in training(job())["forward"]
    assert training(alone)["forward"]["outside torch"] == context + graphs
    assert training(several)["forward"]["outside torch"] == context + nccl + graphs
    assert training(eager)["forward"]["outside torch"] == context + nccl
    # Awake, the engine's graphs are in its own share.
    assert phases(several, 1e5)["generation"]["outside torch"] == context + nccl


def test_a_snapshot_is_one_copy_of_the_weights_and_the_entropy_one_more_slice():
    for ranks in (1, 4):
        without, with_one = (max(map(total, training(job(snapshots=n, ranks=ranks)).values())) for n in (0, 1))
        assert with_one - without == 4 * 1560 / ranks
    chunks = [training(replace(job(), entropy_in_update=value))["log-probs"]["log-prob chunks"] for value in (False, True)]
    assert chunks[1] - chunks[0] == 12 * 20 * 4


def test_adapters_by_hand():
    # Widths in and out of QWEN2's matrices: 16 + 12 + 12 + 16 + 18 + 18 + 18 = 110; of rank 3 in 3 layers 990 trained weights.
    lora = Lora(rank=3, alpha=3.0)
    whole, half = (job(snapshots=1, lora=lora, policy_dtype=dtype) for dtype in ("float32", "bfloat16"))
    parts = training(whole)["embeddings"]
    assert parts["weights"] == 4 * (1560 + 990) and parts["optimizer"] == 2 * 4 * 990
    assert parts["gradients"] == parts["snapshot"] == 4 * 990
    assert training(half)["forward"]["weights"] == 2 * 3 * 448 + 4 * (1560 - 3 * 448 + 990)  # the layers' matrices in bfloat16
    assert training(half)["forward"]["compute copies"] == 2 * 990  # adapters, as autocast copies them
    two = training(replace(whole, ranks=2))["backward"]
    assert two["weights"] == parts["weights"] / 2 and two["gradients"] == 330 * 8  # a layer's own and what is sent
    assert job(lora=Lora(rank=3, alpha=3.0, matrices=["q_proj", "v_proj"])).trained == 3 * 3 * (16 + 12)


def test_ranks_that_hold_an_engine_together_hold_a_share_each():
    # 3120 bytes in bfloat16; two of four ranks' keys are one head of 2 wide, and no rank has less than a head.
    weights, sequences = zip(
        *((engine_weights(one), one_sequence(one)) for n in (1, 2, 4) for one in [job(engine=Engine(tensor_parallel=n))]),
        strict=True,
    )
    assert weights == (3120, 1560, 780) and sequences == (480, 240, 240)


def test_what_is_offloaded_is_not_on_the_device():
    one = job(snapshots=1, micro_batch_tokens=10, offload_to_host=True, ranks=2)
    on_gpu = training(replace(one, device="cuda"))["backward"]
    assert [on_gpu[part] for part in ("weights", "optimizer", "snapshot")] == [0, 0, 0]
    assert on_gpu["gradients"] == 4 * 160 + 464 * 8  # what waits for the input embeddings', and a layer's own
    assert training(one)["backward"]["weights"] == 4 * 1560 / 2  # a CPU is the host


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Policies of one or three layers, so that a difference is that of two layers."""
    made = {}

    def make(kind: str, key_heads: int, dtype: str, lora: Lora | None, layers: int) -> Policy:
        key = (kind, key_heads, dtype, lora is None, layers)
        if key not in made:
            folder = tmp_path_factory.mktemp("model")
            config = AutoConfig.for_model(**config_of(kind, key_heads), num_hidden_layers=layers)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            train = TINY.train.model_copy(update={"policy_dtype": dtype, "lora": lora})
            made[key] = Policy(folder, load_params().objectives["grpo"], train, TINY.execution, 64)
        return made[key]

    return make


def config_of(kind: str, key_heads: int) -> dict:
    sizes = {name: value for name, value in SIZES.items() if name != "num_hidden_layers"}
    return {**sizes, "model_type": kind, "num_key_value_heads": key_heads, "head_dim": 6 if kind == "qwen3" else 2}


def kept_by_autograd(policy: Policy, prompt: int, completions: list[int]) -> int:
    """Bytes of all tensors that a forward pass keeps, weights and their bfloat16 copies left out."""
    prompts, answers = [[5] * prompt] * len(completions), [[7] * length for length in completions]
    micro = next(iter(micro_batches(prompts, answers, 10**6, torch.device("cpu"))))
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}
    kept, alive = {}, []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        is_copy = tensor.grad_fn is not None and tensor.grad_fn.name() == "TBackward0"  # of a weight, for its product
        if storage.data_ptr() not in weights and not is_copy:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # a freed one's address would come again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.scorer(micro, with_entropy=False)
    return sum(kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "key_heads"), [("qwen2", 2), ("qwen2", 4), ("qwen3", 2), ("llama", 1)])
@pytest.mark.parametrize("lora", [None, Lora(rank=3, alpha=3.0)])
@pytest.mark.parametrize("completions", [[20], [9, 9], [1, 5, 14]])
def test_what_a_layer_keeps_is_what_autograd_keeps(policies, kind, key_heads, dtype, lora, completions):
    one, three = (kept_by_autograd(policies(kind, key_heads, dtype, lora, layers), 8, completions) for layers in (1, 3))
    shape = shape_of({**config_of(kind, key_heads), "num_hidden_layers": 3}, "here")
    second = shape.trace(dtype, lora is not None).layers[1]  # the first keeps angles too, which all share
    assert kept_by(second, shape.layers[1], Packed([(8, completions)], True), dtype, lora) == (three - one) / 2


jobs = st.builds(
    job,
    limits=st.tuples(st.integers(1, 64), st.integers(1, 256)),
    snapshots=st.integers(0, 3),
    device=st.just("cuda"),
    ranks=st.integers(1, 16),
    micro_batch_tokens=st.integers(1, 4096),
    mini_batch_prompts=st.integers(1, 16),
    completions_per_prompt=st.integers(2, 16),
    policy_dtype=st.sampled_from(["float32", "bfloat16"]),
    gradient_checkpointing=st.booleans(),
    lora=st.sampled_from([None, Lora(rank=2, alpha=2.0)]),
    offload_to_host=st.booleans(),
)


def peak(one: Job) -> float:
    return max(map(total, training(one).values()))


def executed(one: Job, **changes) -> Job:
    return replace(one, execution=one.execution.model_copy(update=changes))


@given(jobs, st.integers(1, 2048))
def test_more_tokens_never_take_less(one, more):
    # Gradients of earlier micro-batches go where all fits into one: what remains counts.
    assert activations(executed(one, micro_batch_tokens=one.execution.micro_batch_tokens + more)) >= activations(one)


def activations(one: Job) -> float:
    return max(parts.get("activations", 0.0) for parts in training(one).values())


@given(jobs)
def test_checkpointing_never_keeps_more_over_several_layers(one):
    with_it, without = (executed(one, gradient_checkpointing=value) for value in (True, False))
    assert peak(with_it) <= peak(without)


@given(jobs, st.integers(1, 16))
def test_more_ranks_hold_less_each(one, more):
    one = replace(one, ranks=max(2, one.ranks))  # alone nothing is gathered
    fewer, others = training(one), training(replace(one, ranks=one.ranks + more))
    for part in ("weights", "optimizer", "snapshot"):
        assert others["forward"][part] <= fewer["forward"][part]
    assert peak(replace(one, ranks=one.ranks + more)) <= peak(one)


@given(jobs, st.integers(1, 4))
def test_more_layers_take_more(one, more):
    deeper = shape_of({**QWEN2, "num_hidden_layers": 3 + more}, "here")
    assert peak(replace(one, shape=deeper)) > peak(one)
