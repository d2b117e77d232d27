"""How often the host waits for the device in an update: once for each optimizer step, whatever the number of micro-batches.

There is no GPU in these tests, so what would wait for one is counted on a CPU, at two levels. ``Kernels`` sees the operators of
the forward and backward pass, those inside torch's own functions too: reads of a number, results whose size depends on values,
comparisons of whole tensors, copies between devices. ``Calls`` sees what a CPU tensor does without an operator (its values as a
list or array), and tensors made of Python's numbers, which on a GPU are copied there.

Neither sees a wait inside a kernel or a library (NCCL, the allocator), nor branches that a GPU alone takes: pinned copies
(sfpo/trainer/packing.py) and variable-length attention (sfpo/trainer/attention.py), which has none of these operators. On a
GPU, gpu-check counts.
"""

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sfpo.algorithms.update_rules import make_update_rule
from sfpo.trainer.policy import Policy
from sfpo.types import OldPolicy, TrainBatch

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.bincount.default,
}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Indices of bool are turned into places first, whose number is not known."""


class Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in READS or (function is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None):
            self.seen[str(function)] += 1
        if function in INDEXED and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
            self.seen[f"{function} by bool"] += 1
        target = kwargs.get("device")
        if function is aten._to_copy.default and target is not None and torch.device(target) != args[0].device:
            self.seen[f"copy to {target}"] += 1
        return function(*args, **kwargs)


VALUES = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__}
MADE = {torch.tensor, torch.as_tensor, torch.Tensor.new_tensor}


class Calls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in VALUES | MADE:
            self.seen[function.__name__] += 1
        return function(*args, **(kwargs or {}))


def waits(work) -> Counter[str]:
    with Kernels() as kernels, Calls() as calls:
        work()
    return kernels.seen + calls.seen


@pytest.mark.parametrize(
    ("work", "seen"),
    [
        (lambda x: x.sum().item(), "aten._local_scalar_dense.default"),
        (lambda x: float(x.sum()), "aten._local_scalar_dense.default"),
        (lambda x: bool((x > 0).all()), "aten._local_scalar_dense.default"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.detach().numpy(), "numpy"),
        (lambda x: x[x > 0], "aten.index.Tensor by bool"),
        (lambda x: x.detach().clone().__setitem__(x > 0, 0.0), "aten.index_put_.default by bool"),
        (lambda x: x.masked_select(x > 0), "aten.masked_select.default"),
        (lambda x: x.nonzero(), "aten.nonzero.default"),
        (lambda x: torch.equal(x, x), "aten.equal.default"),
        (lambda x: x.repeat_interleave(torch.ones(3, dtype=torch.long)), "aten.repeat_interleave.Tensor"),
        (lambda x: x.to("meta"), "copy to meta"),
        (lambda x: torch.tensor([1.0, 2.0]), "tensor"),
        (lambda x: x.square().sum().backward(), None),
        (lambda x: x.repeat_interleave(torch.full((3,), 2).cumsum(0) // torch.arange(1, 4), output_size=6), None),
        (lambda x: x[torch.arange(2)], None),
    ],
)
def test_what_is_counted(work, seen):
    x = torch.randn(3, requires_grad=True)
    assert waits(lambda: work(x)) == (Counter({seen: 1}) if seen else Counter())


@pytest.fixture
def make_policy(checkpoint, params):
    def make(objective="grpo", packing="auto", **changes) -> Policy:
        tiny = params.suites["tiny"]
        train = tiny.train.model_copy(update={"prompts_per_step": 4, "mini_batch_prompts": 2, "packing": packing, **changes})
        execution = tiny.execution.model_copy(update={"micro_batch_tokens": 10})
        objective = params.objectives[objective]
        return Policy(checkpoint, objective.model_copy(update={"sampler_correction_cap": 2.0}), train, execution, 32)

    return make


def make_batch(policy: Policy) -> TrainBatch:
    prompts = [[5 + group, 6, 7] for group in range(4) for _ in range(4)]
    completions = [[10 + row] * (1 + row % 5) for row in range(16)]
    logprobs, entropy = policy.score(prompts, completions)
    advantages = torch.linspace(-1.0, 1.0, 16)
    return TrainBatch(prompts, completions, advantages, OldPolicy(logprobs, entropy.mean().item()), 4, logprobs - 0.1)


@pytest.mark.parametrize("objective", ["grpo", "gspo", "grpo_kl"])
def test_the_host_waits_once_for_each_optimizer_step(make_policy, objective):
    policy = make_policy(objective)
    batch = make_batch(policy)
    policy.descend(batch)  # the first pass builds the micro-batches
    assert all(len(mini.parts) > 2 for mini in policy._on_device(batch))
    assert waits(lambda: policy.descend(batch)) == Counter(tolist=2)


def test_a_step_of_sfpo_waits_no_more_than_its_passes(make_policy):
    policy = make_policy()
    batch = make_batch(policy)
    rule = make_update_rule("sfpo", num_fast_steps=3)
    rule.step(policy, batch)
    assert waits(lambda: rule.step(policy, batch)) == Counter(tolist=2 * 4)


def test_transformers_waits_once_more_for_each_micro_batch_of_padded_rows(make_policy):
    # It looks whether sequences are packed into a row (masking_utils.find_packed_sequence_indices).
    policy = make_policy(packing="padded")
    batch = make_batch(policy)
    policy.descend(batch)
    parts = sum(len(mini.parts) for mini in policy._on_device(batch))
    assert waits(lambda: policy.descend(batch)) == Counter({"tolist": 2, "aten._local_scalar_dense.default": parts})


def test_the_first_pass_makes_tensors_of_the_batch_and_reads_no_more(make_policy):
    policy = make_policy()
    policy.descend(make_batch(policy))  # the kinds of masks are known
    batch = make_batch(policy)
    seen = waits(lambda: policy.descend(batch))
    # One tensor for each micro-batch, and the lengths of the completions of each mini-batch. On the host, where the advantages
    # are: which rows have a gradient, and the weights of the tokens.
    parts = sum(len(mini.parts) for mini in policy._on_device(batch))
    on_host = {"aten.nonzero.default": 2, "tolist": 2, "aten.repeat_interleave.Tensor": 2}
    assert seen == Counter(on_host) + Counter(tensor=parts + 2, tolist=2)


def test_old_logprobs_of_the_first_pass_cost_no_wait_of_their_own(make_policy):
    policy = make_policy(mini_batch_prompts=4)
    batch = make_batch(policy)
    without = TrainBatch(batch.prompt_ids, batch.completion_ids, batch.advantages, None, 4, batch.sampler_logprobs)
    policy.descend(without)
    assert waits(lambda: policy.descend(without)) == Counter(tolist=1)
