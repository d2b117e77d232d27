"""Update rules against closed forms and plain re-computation."""

import pytest
import torch

from sfpo.algorithms.update_rules import UpdateRule, make_update_rule, rule_names
from sfpo.types import TrainBatch


def batch(entropy: float = 1.0) -> TrainBatch:
    return TrainBatch([[1]], [[2]], torch.zeros(1), torch.zeros(1), entropy=entropy, group_size=1)


class Quadratic:
    """f(x) = x^T A x / 2 under an optimizer of torch: a policy whose whole path can be worked out by hand."""

    def __init__(self, start, optimizer=torch.optim.SGD, curvature=None, **settings) -> None:
        self.x = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.curvature = torch.eye(len(self.x), dtype=torch.float64) if curvature is None else curvature
        self.optimizer = optimizer([self.x], **settings)
        self.path, self.gradients = [], []

    def parameters(self):
        return [self.x]

    def descend(self, batch):
        self.optimizer.zero_grad()
        loss = self.x @ self.curvature @ self.x / 2
        loss.backward()
        self.path.append(self.x.detach().clone())
        self.gradients.append(self.x.grad.clone())
        self.optimizer.step()
        return {"loss": loss.item()}


@pytest.mark.parametrize("fast_steps", [1, 3, 7])
@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_one_sfpo_step_on_a_parabola_is_the_closed_form(fast_steps, alpha):
    # SGD on x^2/2 from 1: K fast steps reach (1-eta)^K; reposition gives 1 + alpha ((1-eta)^K - 1); the slow step
    # multiplies by 1-eta.
    eta = 0.1
    policy = Quadratic([1.0], lr=eta)
    make_update_rule("sfpo", num_fast_steps=fast_steps, alpha=alpha).step(policy, batch())
    assert policy.x.item() == pytest.approx((1 - eta) * (1 + alpha * ((1 - eta) ** fast_steps - 1)), abs=1e-15)


def test_the_unified_update_of_the_paper_holds_on_a_random_quadratic():
    # theta^{s+1} = theta^{s,0} - eta [alpha sum_{k<K} grad L(theta^{s,k}) + grad L(theta~)]
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    policy = Quadratic([1.0, -2.0, 3.0, 0.5, -1.0], curvature=root @ root.T / 5, lr=0.05)
    start = policy.x.detach().clone()
    make_update_rule("sfpo", num_fast_steps=4, alpha=0.6).step(policy, batch())
    expected = start - 0.05 * (0.6 * sum(policy.gradients[:4]) + policy.gradients[4])
    torch.testing.assert_close(policy.x.detach(), expected, rtol=0, atol=1e-14)


def test_alpha_one_is_k_plus_one_grpo_steps_bit_for_bit():
    sfpo, grpo = (Quadratic([1.0, -0.3], torch.optim.AdamW, lr=0.01) for _ in range(2))
    make_update_rule("sfpo", num_fast_steps=3, alpha=1.0).step(sfpo, batch())
    for _ in range(4):
        make_update_rule("grpo").step(grpo, batch())
    assert torch.equal(sfpo.x, grpo.x)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 0.8, "entropy_trigger": {"window": 2, "threshold": 0.5}}])
def test_alpha_zero_and_a_fired_trigger_are_grpo_bit_for_bit_under_adamw(settings):
    sfpo, grpo = (Quadratic([1.0, -0.3], torch.optim.AdamW, lr=0.01) for _ in range(2))
    rule = make_update_rule("sfpo", **settings)
    if "entropy_trigger" in settings:
        # Entropies 1, 2: mean 1.5, population std 0.5, z = 1 >= 0.5: fires after two steps.
        for entropy in (1.0, 2.0):
            rule.step(Quadratic([0.0], lr=0.1), batch(entropy))
        assert rule.trigger_fired_at == 3
    report = rule.step(sfpo, batch())
    make_update_rule("grpo").step(grpo, batch())
    assert torch.equal(sfpo.x, grpo.x)
    assert len(report.updates) == 1 and report.alpha == 0.0


def test_sfpo_reports_every_update_and_alpha():
    report = make_update_rule("sfpo", num_fast_steps=3, alpha=0.8).step(Quadratic([1.0], lr=0.1), batch())
    # Losses x^2/2 at x = 1, 0.9, 0.81, and at the repositioned 1 + 0.8 (0.729 - 1) = 0.7832.
    assert [update["loss"] for update in report.updates] == pytest.approx([0.5, 0.405, 0.32805, 0.7832**2 / 2])
    assert report.alpha == 0.8 and report.entropy_zscore is None and not report.trigger_fired


def test_the_triggers_state_survives_a_resume():
    settings = {"entropy_trigger": {"form": "paper", "window": 3, "threshold": 1.2}}
    through, before, after = (make_update_rule("sfpo", **settings) for _ in range(3))
    entropies = [1.0, 1.1, 0.9, 1.0, 0.2]
    for entropy in entropies:
        through.step(Quadratic([1.0], lr=0.1), batch(entropy))
    for entropy in entropies[:2]:
        before.step(Quadratic([1.0], lr=0.1), batch(entropy))
    after.load_state_dict(before.state_dict())
    for entropy in entropies[2:]:
        after.step(Quadratic([1.0], lr=0.1), batch(entropy))
    assert through.trigger_fired_at is not None
    assert after.state_dict() == through.state_dict()


def test_every_rule_file_makes_a_rule():
    assert {"grpo", "sfpo"} <= set(rule_names())
    for name in rule_names():
        assert isinstance(make_update_rule(name), UpdateRule)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("sgd", {}, "rule = 'sgd': allowed are "),
        ("grpo", {"alpha": 0.5}, "alpha: unknown setting of rule grpo"),
        ("sfpo", {"alpha": 1.5}, "alpha = 1.5"),
        ("sfpo", {"num_fast_steps": -1}, "num_fast_steps = -1"),
        ("sfpo", {"num_fast_steps": 2.5}, "num_fast_steps = 2.5"),
        ("sfpo", {"entropy_trigger": {"form": "both"}}, "entropy_trigger.form = 'both'"),
        ("sfpo", {"entropy_trigger": {"omega": 30}}, "entropy_trigger = .*keys are form, window, threshold"),
        ("sfpo", {"entropy_trigger": {"window": 1}}, "entropy_trigger.window = 1"),
        ("sfpo", {"entropy_trigger": {"threshold": 0}}, "entropy_trigger.threshold = 0"),
    ],
)
def test_impossible_settings_are_named(name, settings, told):
    with pytest.raises(ValueError, match="^" + told):
        make_update_rule(name, **settings)
