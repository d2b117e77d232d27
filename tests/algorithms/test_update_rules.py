"""Update rules against closed forms and plain re-computation."""

import dataclasses
import gc

import pytest
import torch

from sfpo.algorithms.update_rules import Passes, Update, UpdateRule, make_update_rule, rule_names
from sfpo.algorithms.update_rules.gxpo import extrapolation
from sfpo.types import OldPolicy, TrainBatch


def batch(entropy: float = 1.0) -> TrainBatch:
    return TrainBatch([[1]], [[2]], torch.zeros(1), OldPolicy(torch.zeros(1), entropy), group_size=1)


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
        return Update({"loss": loss.item()}, batch.old)


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
    assert {"grpo", "sfpo", "grpo_k", "lookahead", "extragradient", "gxpo"} == set(rule_names())
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
        ("grpo_k", {"num_fast_steps": 0}, "num_fast_steps = 0"),
        ("lookahead", {"alpha": 0.0}, "alpha = 0.0: the weights would never change"),
        ("extragradient", {"optimizer_state": "drop"}, "optimizer_state = 'drop': allowed are keep, restore"),
        ("gxpo", {"num_fast_steps": 1}, "num_fast_steps = 1"),
        ("gxpo", {"ema_decay": 1.0}, "ema_decay = 1.0"),
        ("gxpo", {"fallback_threshold": 0}, "fallback_threshold = 0"),
        ("sfpo", {"reposition": "kl"}, "reposition = 'kl': allowed are true, false"),
        ("sfpo", {"alpha_decay_steps": 0}, "alpha_decay_steps = 0"),
        ("sfpo", {"entropy_trigger": {"warm_up": -1}}, "entropy_trigger.warm_up = -1"),
        ("sfpo", {"entropy_trigger": {"omega": 30}}, "entropy_trigger = .*allowed keys are form, window, threshold, warm_up"),
        ("sfpo", {"entropy_trigger": {"window": 1}}, "entropy_trigger.window = 1"),
        ("sfpo", {"entropy_trigger": {"threshold": 0}}, "entropy_trigger.threshold = 0"),
    ],
)
def test_impossible_settings_are_named(name, settings, told):
    with pytest.raises(ValueError, match="^" + told):
        make_update_rule(name, **settings)


class MiniBatched(Quadratic):
    """The quadratic as a policy of several mini-batches, each with a curvature of its own, that shows its gradients."""

    def __init__(self, start, curvatures, **settings) -> None:
        super().__init__(start, **settings)
        self.curvatures = curvatures

    def mini_batches(self, batch):
        return [dataclasses.replace(batch, prompt_ids=[[place, 0]]) for place in range(len(self.curvatures))]

    def descend(self, batch, observe=None):
        losses = []
        place, *mini = batch.prompt_ids[0]
        for curvature in [self.curvatures[place]] if mini else self.curvatures:
            self.optimizer.zero_grad()
            loss = self.x @ curvature @ self.x / 2
            loss.backward()
            if observe:
                observe()
            self.path.append(self.x.detach().clone())
            self.optimizer.step()
            losses.append(loss.item())
        return Update({"loss": sum(losses) / len(losses), "ratio_max": max(losses)}, batch.old)


class FindsOut(MiniBatched):
    """Finds out the old log-probs of a batch that has none, and notes what each pass was given."""

    def __init__(self) -> None:
        super().__init__([1.0], [torch.eye(1, dtype=torch.float64)], lr=0.1)
        self.found, self.given = OldPolicy(torch.tensor([-0.7]), entropy=0.3), []

    def mini_batches(self, batch):
        return [batch]

    def descend(self, batch, observe=None):
        self.given.append(batch.old)
        return Update(super().descend(batch, observe).metrics, batch.old or self.found)


@pytest.mark.parametrize("old", [None, OldPolicy(torch.zeros(1), entropy=1.0)])
@pytest.mark.parametrize("name", rule_names())
def test_what_the_first_pass_finds_out_reaches_the_others_and_the_report(name, old):
    # A batch that has its old log-probs keeps them through all passes.
    policy, given = FindsOut(), dataclasses.replace(batch(), old=old)
    report = make_update_rule(name).step(policy, given)
    first, *others = policy.given
    assert first is old and given.old is old
    assert all(one is (old or policy.found) for one in [*others, report.old])
    assert len(others) == {"grpo": 0, "sfpo": 3, "grpo_k": 3, "lookahead": 2, "extragradient": 1, "gxpo": 2}[name]


def test_old_log_probs_are_not_known_before_the_first_pass():
    passes = Passes(FindsOut(), dataclasses.replace(batch(), old=None))
    with pytest.raises(RuntimeError, match="no pass yet"):
        passes.old  # noqa: B018


def steps_taken(policy, times):
    for _ in range(times):
        policy.descend(batch())
    return policy.x.detach()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_grpo_k_is_k_plus_one_grpo_steps(optimizer):
    many, single = (Quadratic([1.0, -0.3], optimizer, lr=0.01) for _ in range(2))
    report = make_update_rule("grpo_k", num_fast_steps=3).step(many, batch())
    assert torch.equal(many.x, steps_taken(single, 4)) and report.backward_passes == 4


def test_lookahead_by_hand_and_at_alpha_one():
    # SGD on x^2/2 from 1, eta 0.1: two fast steps reach 0.81; half the way back toward 1 is 0.905.
    policy = Quadratic([1.0], lr=0.1)
    report = make_update_rule("lookahead", num_fast_steps=2, alpha=0.5).step(policy, batch())
    assert policy.x.item() == pytest.approx(0.905, abs=1e-15) and report.backward_passes == 2
    whole, plain = (Quadratic([1.0, -0.3], torch.optim.AdamW, lr=0.01) for _ in range(2))
    make_update_rule("lookahead", num_fast_steps=3, alpha=1.0).step(whole, batch())
    assert torch.equal(whole.x, steps_taken(plain, 3))


def test_extragradient_is_korpelevichs_step_under_sgd():
    # theta' = theta - eta A theta; theta+ = theta - eta A theta' = (I - eta A + eta^2 A^2) theta.
    curvature = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    policy = Quadratic([1.0, -2.0], curvature=curvature, lr=0.1)
    start = policy.x.detach().clone()
    report = make_update_rule("extragradient").step(policy, batch())
    expected = start - 0.1 * curvature @ start + 0.01 * curvature @ curvature @ start
    torch.testing.assert_close(policy.x.detach(), expected, rtol=0, atol=1e-15)
    assert report.backward_passes == 2


def test_sfpo_without_reposition_is_grpo_k_and_without_correction_lookahead():
    for settings, name in (({"reposition": False}, "grpo_k"), ({"slow_correction": False}, "lookahead")):
        ablated, rival = (Quadratic([1.0, -0.3], torch.optim.AdamW, lr=0.01) for _ in range(2))
        make_update_rule("sfpo", **settings).step(ablated, batch())
        make_update_rule(name).step(rival, batch())
        assert torch.equal(ablated.x, rival.x), name


def test_without_a_correction_a_fired_trigger_still_learns():
    rule = make_update_rule("sfpo", slow_correction=False, entropy_trigger={"window": 2, "threshold": 0.5})
    for entropy in (1.0, 2.0):
        rule.step(Quadratic([1.0], lr=0.1), batch(entropy))
    policy = Quadratic([1.0], lr=0.1)
    report = rule.step(policy, batch())
    assert report.trigger_fired and policy.x.item() == pytest.approx(0.9)


def test_alpha_decays_linearly_from_the_first_step_or_from_the_trigger():
    # No trigger: step s of N = 4 has alpha (1 - s/4). With one that fires for step 3: alpha, alpha, then the same fall.
    rule = make_update_rule("sfpo", alpha=0.8, alpha_decay_steps=4)
    reports = [rule.step(Quadratic([1.0], lr=0.1), batch()) for _ in range(6)]
    assert [report.alpha for report in reports] == pytest.approx([0.6, 0.4, 0.2, 0.0, 0.0, 0.0])
    assert [report.slow_fast for report in reports] == [True] * 3 + [False] * 3
    assert rule.trigger_fired_at is None and not any(report.trigger_fired for report in reports)  # there is none
    rule = make_update_rule("sfpo", alpha=0.8, alpha_decay_steps=4, entropy_trigger={"window": 2, "threshold": 0.5})
    reports = [rule.step(Quadratic([1.0], lr=0.1), batch(entropy)) for entropy in (1.0, 2.0, 1.0, 1.0, 1.0, 1.0)]
    assert [report.alpha for report in reports] == pytest.approx([0.8, 0.8, 0.6, 0.4, 0.2, 0.0])
    assert [len(report.updates) for report in reports] == [4, 4, 4, 4, 4, 1]
    assert [report.slow_fast for report in reports] == [True] * 5 + [False]  # the stages run on while alpha falls
    assert rule.trigger_fired_at == 3 and [report.trigger_fired for report in reports] == [False] * 2 + [True] * 4
    resumed = make_update_rule("sfpo", alpha=0.8, alpha_decay_steps=4, entropy_trigger={"window": 2, "threshold": 0.5})
    for entropy in (1.0, 2.0, 1.0):
        resumed.step(Quadratic([1.0], lr=0.1), batch(entropy))
    again = make_update_rule("sfpo", alpha=0.8, alpha_decay_steps=4, entropy_trigger={"window": 2, "threshold": 0.5})
    again.load_state_dict(resumed.state_dict())
    assert again.step(Quadratic([1.0], lr=0.1), batch()).alpha == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["sfpo", "lookahead", "extragradient"])
def test_optimizer_state_restored_is_that_of_the_start(name):
    # Momentum SGD: after a warm-up step the buffer holds a gradient m. Kept, the rule leaves another buffer behind than
    # restored; restored before the last descent, SFPO's and the extragradient's last step sees m as it was at the start.
    kept, restored = (Quadratic([1.0, -0.3], torch.optim.SGD, lr=0.1, momentum=0.9) for _ in range(2))
    for policy in (kept, restored):
        policy.descend(batch())
    before = restored.optimizer.state[restored.x]["momentum_buffer"].clone()
    make_update_rule(name, optimizer_state="keep").step(kept, batch())
    make_update_rule(name, optimizer_state="restore").step(restored, batch())
    after = restored.optimizer.state[restored.x]["momentum_buffer"]
    # Lookahead ends on the start's buffer; the others took one more step from it: 0.9 m + the last gradient.
    expected = before if name == "lookahead" else 0.9 * before + restored.gradients[-1]
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-15)
    assert not torch.equal(kept.optimizer.state[kept.x]["momentum_buffer"], after)


def test_restoring_needs_a_policy_that_shows_its_optimizer():
    policy = Quadratic([1.0], lr=0.1)
    del policy.optimizer
    with pytest.raises(TypeError, match="optimizer_state 'restore' needs a policy with an attribute `optimizer`"):
        make_update_rule("sfpo", optimizer_state="restore").step(policy, batch())


@pytest.mark.parametrize("fast_steps", [2, 3, 5])
def test_gxpo_reaches_sfpos_point_on_a_diagonal_quadratic(fast_steps):
    # SGD shrinks each coordinate by r = 1 - eta h a step, so S_K(r)/S_2(r) extrapolates two steps to K exactly while it lies in
    # [1, K/2 + 1]: here r = 0.9, 0.5 give for K = 5 4.0951/1.9 = 2.16 and 1.9375/1.5 = 1.29.
    curvature = torch.diag(torch.tensor([1.0, 5.0], dtype=torch.float64))
    gxpo = MiniBatched([1.0, -2.0], [curvature], lr=0.1)
    sfpo = Quadratic([1.0, -2.0], curvature=curvature, lr=0.1)
    report = make_update_rule("gxpo", num_fast_steps=fast_steps, alpha=0.8).step(gxpo, batch())
    make_update_rule("sfpo", num_fast_steps=fast_steps, alpha=0.8).step(sfpo, batch())
    torch.testing.assert_close(gxpo.x, sfpo.x, rtol=0, atol=1e-14)
    assert report.backward_passes == 3


def test_extrapolation_by_hand():
    # K = 4, S_4/S_2 = 1 + r^2. r = 0.5: 1.25. r = 2: 5, clipped to K/2 + 1 = 3. r = 0/1 = 0: 1. g0 = 0: r is 1, 1 + 1 = 2.
    # r = -1: S_2 = 0 and S_4 = 0, no extrapolation: 1. r = -5 is clipped to -2: 1 + 4 = 5, clipped to 3. NaN: r is 1.
    first = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, float("nan")], dtype=torch.float64)
    second = torch.tensor([0.5, 2.0, 0.0, 1.0, -1.0, -5.0, 1.0], dtype=torch.float64)
    assert extrapolation(first, second, 4).tolist() == [1.25, 3.0, 1.0, 2.0, 1.0, 3.0, 2.0]


def test_gxpo_at_alpha_zero_is_grpo():
    curvatures = [torch.eye(2, dtype=torch.float64), 2 * torch.eye(2, dtype=torch.float64)]
    gxpo, grpo = (MiniBatched([1.0, -2.0], curvatures, optimizer=torch.optim.AdamW, lr=0.01) for _ in range(2))
    report = make_update_rule("gxpo", alpha=0.0).step(gxpo, batch())
    make_update_rule("grpo").step(grpo, batch())
    assert torch.equal(gxpo.x, grpo.x) and report.backward_passes == 1


def test_gxpo_falls_back_to_one_update_after_a_strange_gradient_norm_and_comes_back():
    # The gradient h x of a slow descent hardly changes from step to step; a curvature a hundred times larger stands out.
    usual, strange = torch.eye(1, dtype=torch.float64), 100 * torch.eye(1, dtype=torch.float64)
    policy = MiniBatched([1.0], [usual], lr=1e-4)
    rule = make_update_rule("gxpo", fallback_threshold=3.0)
    passes = []
    for step in range(20):
        policy.curvatures = [strange if step == 12 else usual]
        passes.append(rule.step(policy, batch()).backward_passes)
    assert passes[:13] == [3.0] * 13 and passes[13] == 1.0 and passes[14:] == [3.0] * 6
    resumed = make_update_rule("gxpo")
    resumed.load_state_dict(rule.state_dict())
    assert resumed.state_dict() == rule.state_dict()


@pytest.mark.parametrize(
    ("name", "settings", "copies"),
    [
        ("grpo", {}, 0),
        ("grpo_k", {}, 0),
        ("sfpo", {}, 1),
        ("sfpo", {"alpha": 0.0}, 0),
        ("sfpo", {"snapshot_on_host": True}, 1),  # on a CPU the host's memory is the device's
        ("sfpo", {"optimizer_state": "restore"}, 3),  # and AdamW's two moments
        ("lookahead", {}, 1),
        ("lookahead", {"optimizer_state": "restore"}, 3),
        ("extragradient", {}, 1),
        ("extragradient", {"optimizer_state": "restore"}, 3),
        ("gxpo", {}, 3),  # the start, two gradients
        ("gxpo", {"alpha": 0.0}, 0),
    ],
)
def test_a_rule_says_how_many_copies_of_the_weights_it_keeps(name, settings, copies):
    kinds = (torch.Tensor, torch.nn.Parameter)  # not what compilers use in their place, which another test may have left

    class Counting(MiniBatched):
        most = 0
        last = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))  # a loop's names go on holding the last weight's tensors

        def parameters(self):
            self.last.grad = torch.zeros_like(self.last)
            return [self.x, self.last]

        def descend(self, batch, observe=None):
            def look() -> None:
                if observe:
                    observe()
                own = [self.x, self.x.grad, *self.optimizer.state[self.x].values(), *self.path]
                alive = [one for one in gc.get_objects() if type(one) in kinds and one.shape == self.x.shape]
                self.most = max(self.most, len({one.data_ptr() for one in alive} - {one.data_ptr() for one in own}))

            return super().descend(batch, look)

    size = 1013  # no other tensor in this process is as long
    policy = Counting([0.5] * size, [torch.eye(size, dtype=torch.float64)], lr=0.01, optimizer=torch.optim.AdamW)
    policy.descend(batch())  # makes AdamW's moments
    rule = make_update_rule(name, **settings)
    rule.step(policy, batch())
    assert rule.weight_copies(on_gpu=False) == copies == policy.most


def test_a_snapshot_on_the_host_takes_nothing_of_a_gpu():
    assert make_update_rule("sfpo", snapshot_on_host=True).weight_copies(on_gpu=True) == 0
    assert make_update_rule("sfpo").weight_copies(on_gpu=True) == 1
