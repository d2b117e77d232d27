"""SFPO in a plain torch loop: the closed form, the update rule's own numbers, and what leaving a step early does."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from sfpo import SlowFast
from sfpo.algorithms.entropy_trigger import EntropyTrigger
from sfpo.algorithms.update_rules import Update, make_update_rule
from sfpo.types import OldPolicy, TrainBatch

ETA = 0.1


def parabola(start: float = 1.0):
    """x at ``start`` and SGD on x^2/2, whose every step multiplies x by 1 - eta."""
    x = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
    return x, torch.optim.SGD([x], lr=ETA)


def descend(x, optimizer) -> None:
    (x**2 / 2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def step(slow_fast, x, optimizer) -> int:
    """One step of SFPO; how many passes it took."""
    passes = 0
    for _ in slow_fast.passes():
        descend(x, optimizer)
        passes += 1
    return passes


@pytest.mark.parametrize("fast_steps", [1, 3, 7])
@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("given", ["optimizer", "parameters"])
def test_one_step_on_a_parabola_is_the_closed_form(fast_steps, alpha, given):
    # K fast steps from 1 reach (1-eta)^K; reposition gives 1 + alpha ((1-eta)^K - 1); the slow step multiplies by 1-eta.
    x, optimizer = parabola()
    slow_fast = SlowFast(optimizer if given == "optimizer" else iter([x]), num_fast_steps=fast_steps, alpha=alpha)
    assert step(slow_fast, x, optimizer) == (1 if alpha == 0.0 else fast_steps + 1)
    assert x.item() == pytest.approx((1 - ETA) * (1 + alpha * ((1 - ETA) ** fast_steps - 1)), abs=1e-15)


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.0}, {"num_fast_steps": 1, "alpha": 1.0}])
def test_three_steps_are_the_update_rules_bit_for_bit_under_adamw(settings):
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(16, 4, generator=generator), torch.randn(16, 2, generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))

    class Regression:
        """A policy in the rule's terms."""

        def __init__(self) -> None:
            self.model = copy.deepcopy(model)
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)

        def parameters(self):
            return list(self.model.parameters())

        def descend(self, batch):
            ((self.model(inputs) - targets) ** 2).mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            return Update({}, batch.old)

    plain, ruled = Regression(), Regression()
    batch = TrainBatch([[1]], [[2]], torch.zeros(1), OldPolicy(torch.zeros(1), entropy=1.0), group_size=1)
    rule = make_update_rule("sfpo", **settings)
    slow_fast = SlowFast(plain.optimizer, **settings)
    for _ in range(3):
        rule.step(ruled, batch)
        for _ in slow_fast.passes():
            plain.descend(batch)
    for one, other, start in zip(plain.parameters(), ruled.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other) and not torch.equal(one, start)


@pytest.mark.parametrize("as_settings", [True, False])
def test_a_fired_trigger_leaves_one_pass(as_settings):
    # Entropies 1, 2: mean 1.5, population std 0.5, z = 1 >= 0.5: fires after two steps, for the third.
    settings = {"window": 2, "threshold": 0.5}
    x, optimizer = parabola()
    slow_fast = SlowFast(optimizer, entropy_trigger=settings if as_settings else EntropyTrigger(**settings))
    passes = []
    for entropy in (1.0, 2.0, 2.0):
        passes.append(step(slow_fast, x, optimizer))
        slow_fast.observe(entropy)
    assert passes == [4, 4, 1] and slow_fast.trigger_fired_at == 3


def test_without_a_trigger_entropy_changes_nothing():
    x, optimizer = parabola()
    slow_fast = SlowFast(optimizer)
    for entropy in (1.0, 100.0, -100.0):
        slow_fast.observe(entropy)
    assert step(slow_fast, x, optimizer) == 4 and slow_fast.trigger_fired_at is None and slow_fast.state_dict() == {}


def test_the_triggers_state_survives_a_resume_through_json():
    x, optimizer = parabola()
    before, after = (SlowFast(optimizer, entropy_trigger={"window": 2, "threshold": 0.5}) for _ in range(2))
    before.observe(1.0)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    after.observe(2.0)
    assert after.trigger_fired_at == 3 and step(after, x, optimizer) == 1


def test_parameters_that_join_the_optimizer_later_are_repositioned_too():
    x, optimizer = parabola()
    slow_fast = SlowFast(optimizer, num_fast_steps=1, alpha=0.5)
    late = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer.add_param_group({"params": [late]})
    for _ in slow_fast.passes():
        descend(torch.cat([x, late]), optimizer)
    # One fast step multiplies by 0.9; half of the way back is 0.95; the slow step multiplies by 0.9: 0.855 of the start.
    assert [x.item(), late.item()] == pytest.approx([0.855, 1.71])


@pytest.mark.parametrize("again", [lambda x: x, lambda x: torch.nn.Parameter(x.data.t()), lambda x: torch.nn.Parameter(x.data)])
def test_one_weight_that_is_there_twice_is_repositioned_once(again):
    # two fast steps of +1, half of the way back, a slow step of +1: 0.5 * 2 + 1 = 2; twice would be 0.25 * 2 + 1
    x = torch.nn.Parameter(torch.zeros(2, 3))
    for _ in SlowFast([x, again(x)], num_fast_steps=2, alpha=0.5).passes():
        x.data += 1.0
    assert x.tolist() == [[2.0] * 3] * 2


def test_interleaved_columns_of_one_buffer_are_two_weights():
    buffer = torch.zeros(2, 4)
    left, right = torch.nn.Parameter(buffer[:, :2]), torch.nn.Parameter(buffer[:, 2:])
    for _ in SlowFast([left, right], num_fast_steps=2, alpha=0.5).passes():
        buffer += 1.0
    assert buffer.tolist() == [[2.0] * 4] * 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn, torch.bool])
def test_frozen_weights_of_a_quantized_base_stay(dtype):
    base = torch.nn.Parameter(torch.ones(3).to(dtype), requires_grad=False)
    x = torch.nn.Parameter(torch.zeros(1))
    for _ in SlowFast([base, x], num_fast_steps=2, alpha=0.5).passes():
        x.data += 1.0
    assert x.item() == 2.0 and base.float().tolist() == [1.0] * 3


@pytest.mark.parametrize("passes_before_leaving", [1, 3, 4])  # first fast pass, last fast pass, slow correction (K = 3)
def test_a_step_left_early_is_told_and_can_be_cancelled(passes_before_leaving):
    x, optimizer = parabola()
    slow_fast = SlowFast(optimizer)
    for done, _ in enumerate(slow_fast.passes(), 1):
        descend(x, optimizer)
        if done == passes_before_leaving:
            break
    left_at = x.item()
    with pytest.raises(RuntimeError, match=r"^passes\(\) .*left early.*cancel\(\)"):
        step(slow_fast, x, optimizer)
    with pytest.raises(RuntimeError, match=r"^state_dict\(\) "):
        slow_fast.state_dict()
    assert x.item() == left_at != 1.0  # nothing moved by itself
    slow_fast.cancel()
    assert x.item() == 1.0 and slow_fast.state_dict() == {}
    assert step(slow_fast, x, optimizer) == 4


def test_cancel_inside_the_loop_ends_the_step():
    x, optimizer = parabola()
    slow_fast = SlowFast(optimizer)
    turns = 0
    for _ in slow_fast.passes():
        turns += 1
        descend(x, optimizer)
        if turns == 2:
            slow_fast.cancel()
    assert turns == 2 and x.item() == 1.0
    slow_fast.cancel()  # between steps: nothing
    assert x.item() == 1.0 and step(slow_fast, x, optimizer) == 4


def test_one_plain_pass_has_nothing_to_cancel():
    x, optimizer = parabola()
    slow_fast = SlowFast(optimizer, alpha=0.0)
    for _ in slow_fast.passes():
        descend(x, optimizer)
        break
    slow_fast.cancel()
    assert x.item() == pytest.approx(1 - ETA) and step(slow_fast, x, optimizer) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_fast_steps": 0}, "num_fast_steps = 0: K must be"),
        ({"num_fast_steps": 2.0}, "num_fast_steps = 2.0"),
        ({"alpha": 1.5}, r"alpha = 1.5: the reposition factor must lie in \[0, 1\]"),
        ({"entropy_trigger": {"omega": 30}}, "entropy_trigger = .*keys are form, window, threshold"),
        ({"entropy_trigger": {"window": 1}}, "entropy_trigger.window = 1"),
        ({"optimizer_or_params": []}, "optimizer_or_params = list of 0: must be"),
        ({"optimizer_or_params": [{"params": []}]}, "optimizer_or_params = list of 1: must be"),
    ],
)
def test_impossible_settings_are_named(settings, told):
    with pytest.raises(ValueError, match="^" + told):
        SlowFast(**{"optimizer_or_params": parabola()[1], **settings})


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ([torch.zeros(2)], "optimizer_or_params = 1 parameters, all frozen"),
        ([torch.zeros(2, requires_grad=True) * 2], r"optimizer_or_params = the result of an operation, of shape \(2,\)"),
    ],
)
def test_what_is_no_trainable_weight_is_told(parameters, told):
    with pytest.raises(ValueError, match="^" + told):
        SlowFast(parameters)


@pytest.mark.parametrize("entropy", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_an_entropy_that_is_no_number_is_told(entropy):
    slow_fast = SlowFast(parabola()[1], entropy_trigger={"window": 2})
    with pytest.raises(ValueError, match=r"^entropy = .*finite"):
        slow_fast.observe(entropy)


def test_an_entropy_may_be_a_tensor_and_the_state_stays_json():
    slow_fast = SlowFast(parabola()[1], entropy_trigger={"window": 2})
    slow_fast.observe(torch.tensor(1.5))
    assert json.loads(json.dumps(slow_fast.state_dict()))["trigger"]["entropies"] == [1.5]


@pytest.mark.parametrize(("before", "after", "told"), [({"window": 2}, None, "one"), (None, {"window": 2}, "no")])
def test_a_state_with_a_trigger_needs_one_and_the_other_way_round(before, after, told):
    state = SlowFast(parabola()[1], entropy_trigger=before).state_dict()
    with pytest.raises(ValueError, match=f"^state has {told} entropy trigger"):
        SlowFast(parabola()[1], entropy_trigger=after).load_state_dict(state)


def test_two_of_them_inside_a_step_on_the_same_weights_are_refused():
    # Without the check 0.8 of the way would become 0.8 * 0.8 = 0.64 of it.
    x, optimizer = parabola()
    first, second = SlowFast(optimizer), SlowFast(optimizer)
    for _ in first.passes():
        with pytest.raises(RuntimeError, match=r"^another SlowFast is inside a step on these weights"):
            next(second.passes())
        descend(x, optimizer)
    assert step(second, x, optimizer) == 4  # one after the other is fine


def test_weights_unfrozen_inside_a_step_are_told_and_cancel_goes_back():
    x, optimizer = parabola()
    late = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    slow_fast = SlowFast(optimizer, num_fast_steps=1)
    with pytest.raises(RuntimeError, match=r"^trainable parameters: 1 at the start of the step, 2 now"):
        for _ in slow_fast.passes():
            descend(x, optimizer)
            optimizer.add_param_group({"params": [late]})
    slow_fast.cancel()
    assert [x.item(), late.item()] == [1.0, 2.0]


def test_an_unknown_name_in_the_package_is_an_attribute_error():
    import sfpo

    with pytest.raises(AttributeError, match="no attribute 'SlowFaster'"):
        _ = sfpo.SlowFaster


def test_the_package_loads_without_torch():
    code = "import sys, sfpo; assert 'torch' not in sys.modules; sfpo.SlowFast; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_core_imports_torch_alone():
    # Every import of the core that torch has not made itself, by what it is a part of.
    code = """
import sys
import torch
optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
before = set(sys.modules)
import sfpo
for _ in sfpo.SlowFast(optimizer, entropy_trigger=sfpo.EntropyTrigger()).passes():
    pass
from sfpo.algorithms.update_rules import rule_names
for name in rule_names():
    sfpo.make_update_rule(name)
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) - sys.stdlib_module_names - {"torch"} == {"sfpo"}
