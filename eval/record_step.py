"""Record one training step of several arms from the same trained policy, and the loss surface around it (paper, Figure 1).

``python -m eval.record_step evaluations/<suite>/<model>/<dataset>/trajectory-<item>/settings.json`` writes results.json next to
the settings file. It continues the run from its exported last checkpoint: first ``LEAD_IN_STEPS`` ordinary steps, because the
export has no AdamW moments; then it samples the batch of the next step, and each arm takes one step on it from the same weights
and moments. The loss of that batch is evaluated on a grid in the plane that fits all paths best. Finished rows of the grid are
kept in state/, so that an interrupted job resumes.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfpo.ranks import cores

if TYPE_CHECKING:
    from torch import Tensor

    from sfpo.algorithms.trajectory import Plane, Point
    from sfpo.ranks import Ranks
    from sfpo.settings import TrajectorySettings
    from sfpo.trainer.policy import Policy
    from sfpo.types import TrainBatch

log = logging.getLogger(__name__)

LEAD_IN_STEPS = 10
"""With 4 mini-batches, 40 (GRPO) to 160 (SFPO, K = 3) AdamW steps: at least 4 times the time constant of its first moment."""
GRID = 25
"""Number of grid points along each axis."""
MARGIN = 0.3
"""Margin of the grid on each side, as a fraction of the extent of the paths."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, help="settings.json of the recorded step")
    parser.add_argument("--threads", type=int, default=cores(), help="CPU threads of a process (default: all)")
    parser.add_argument("--identity", help="fail unless the settings have this hash (passed by the workflow)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # vLLM fixes this process's number of threads when it is imported, so the variable must be set before.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    from sfpo.settings import TrajectorySettings, load_settings

    record(load_settings(TrajectorySettings, arguments.settings, arguments.identity), arguments.settings.parent)


def record(settings: TrajectorySettings, folder: Path) -> None:
    """Take one step per arm, evaluate the loss on the grid, and write results.json to ``folder``.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is incomplete or corrupt, or all paths lie on one line.
        NonFiniteUpdates: a step diverges.
    """
    from sfpo.algorithms.trajectory import Plane
    from sfpo.manifest import content_sha256, read_manifest, write_json
    from sfpo.provenance import hardware, versions
    from sfpo.ranks import init_distributed
    from sfpo.settings import settings_hash
    from sfpo.trainer.policy import Policy

    ranks, run = init_distributed(), settings.start
    recipe = run.recipe
    trained = read_manifest(Path(settings.checkpoint))["step"]
    policy = Policy(
        settings.checkpoint,
        recipe.objective,
        recipe.train,
        run.execution,
        recipe.limits.max_completion_tokens,
        recipe.learning_rate_scale,
        ranks,
        recipe.seed,
    )
    step = trained + LEAD_IN_STEPS + 1
    batch = lead_in(settings, policy, ranks, step)
    paths = take_steps(settings, policy, batch, step)
    weights = [point.weights for path in paths.values() for point in path]
    plane = Plane.through(weights[0], weights, ranks.sum_)
    longest = (plane.coordinates.amax(0) - plane.coordinates.amin(0)).max().item()
    x, y = (axis(plane.coordinates[:, k], longest) for k in range(2))
    identity = settings_hash(settings)
    known = {"coordinates": plane.coordinates.tolist(), "x": x, "y": y}
    grid = losses_on_grid(policy, batch, plane, known, folder / "state" / identity[:12] / "grid.json", ranks)
    coordinates = iter(plane.coordinates.tolist())
    arms = {
        arm: [
            {"move": point.move, "x": place[0], "y": place[1], "loss": loss_at(policy, batch, point.weights)}
            for point, place in zip(path, coordinates, strict=False)
        ]
        for arm, path in paths.items()
    }
    inputs = [f"{settings.checkpoint}/manifest.json", f"{run.data_path}/train.parquet"]
    if ranks.first:
        write_json(
            folder / "results.json",
            {
                "settings_hash": identity,
                "inputs": {path: content_sha256(Path(path)) for path in inputs},
                "trained_steps": trained,
                "lead_in_steps": LEAD_IN_STEPS,
                "completions": len(batch),
                "completions_with_advantage": int((batch.advantages != 0).sum()),
                "share_in_plane": plane.share,
                "arms": arms,
                "grid": {"x": x, "y": y, "loss": grid},
                "versions": versions(),
                "hardware": hardware(),
            },
        )


def lead_in(settings: TrajectorySettings, policy: Policy, ranks: Ranks, step: int) -> TrainBatch:
    """Train the ``LEAD_IN_STEPS`` before ``step``, to build up AdamW's moments, and return the batch of ``step``."""
    from sfpo.algorithms.advantages import group_advantages
    from sfpo.algorithms.update_rules import make_update_rule
    from sfpo.data.prompts import load_prompts
    from sfpo.rewards.graders import make_grader
    from sfpo.rollouts import make_engine
    from sfpo.trainer.batching import rewards_of, sequences_of, train_batch
    from sfpo.trainer.collector import Collector
    from sfpo.trainer.metrics import PhaseClock
    from sfpo.types import OldPolicy

    run, recipe = settings.start, settings.start.recipe
    engine = make_engine(settings.checkpoint, recipe.limits, recipe.sampler, run.execution.engine, ranks)
    rows = Path(run.data_path) / "train.parquet"
    prompts, _ = load_prompts(rows, engine.tokenizer, recipe.instruction, recipe.limits.max_prompt_tokens)
    rule = make_update_rule(recipe.rule.name, run.execution.model_dump(), **recipe.rule.settings)
    with make_grader(recipe.grader, workers=cores()) as grader:
        collector = Collector(engine, grader, recipe, run.execution.engine.tensor_parallel, PhaseClock(), ranks)
        for at in range(step - LEAD_IN_STEPS, step + 1):
            policy.set_learning_rate(at)
            groups = collector.training_groups(prompts, at).groups
            engine.sleep()
            advantages = group_advantages(rewards_of(groups), recipe.objective.scale_by_std)
            old_logprobs, entropy = policy.score(*sequences_of(groups))
            batch = train_batch(groups, advantages, OldPolicy(old_logprobs, entropy.mean().item()))
            if at < step:
                rule.step(policy, batch)
                engine.wake(policy.weights())
                log.info("lead-in step %d: mean reward %.3f", at, rewards_of(groups).mean().item())
    return batch


def take_steps(settings: TrajectorySettings, policy: Policy, batch: TrainBatch, step: int) -> dict[str, list[Point]]:
    """Arm -> its path through one step on this batch; every arm starts from the policy's current weights and moments."""
    from sfpo.algorithms.trajectory import put_, record_step
    from sfpo.algorithms.update_rules import make_update_rule
    from sfpo.algorithms.weights import optimizer_snapshot, restore_optimizer_, snapshot

    start, moments, paths = snapshot(policy.parameters()), optimizer_snapshot(policy), {}
    for arm, of_arm in settings.arms.items():
        put_(policy.parameters(), start)
        restore_optimizer_(policy, copy.deepcopy(moments))  # the optimizer updates the tensors that it is given in place
        policy.objective = of_arm.objective
        policy.learning_rate = policy.train.optimizer.learning_rate * of_arm.learning_rate_scale
        policy.set_learning_rate(step)
        rule = make_update_rule(of_arm.rule.name, settings.start.execution.model_dump(), **of_arm.rule.settings)
        paths[arm], _ = record_step(rule, policy, batch)
    policy.objective = settings.start.recipe.objective
    return paths


def axis(coordinates: Tensor, longest: float) -> list[float]:
    """Grid points that cover the coordinates, plus a margin of at least a tenth of ``longest`` (the larger axis's extent)."""
    low, high = coordinates.min().item(), coordinates.max().item()
    margin = max(MARGIN * (high - low), longest / 10)
    return [low - margin + (high - low + 2 * margin) * i / (GRID - 1) for i in range(GRID)]


def losses_on_grid(
    policy: Policy, batch: TrainBatch, plane: Plane, known: dict[str, Any], kept: Path, ranks: Ranks
) -> list[list[float]]:
    """The batch's loss at every grid point: one row per y, one column per x.

    Args:
        known: the grid's coordinates; rows that an interrupted job saved are reused only if its coordinates were the same.
        kept: file for finished rows.
    """
    from sfpo.manifest import strict, write_json

    before = json.loads(kept.read_text()) if ranks.first and kept.is_file() else {}
    rows = ranks.gather(before.pop("rows", []) if before.get("known") == strict(known) else [])[0]
    if rows:
        log.info("resuming: %d of %d grid rows are already computed", len(rows), GRID)
    for y in known["y"][len(rows) :]:
        row = []
        for x in known["x"]:
            plane.place_(policy.parameters(), x, y)
            row.append(batch_loss(policy, batch))
        rows.append(row)
        if ranks.first:
            write_json(kept, {"known": known, "rows": rows})
    return rows


def loss_at(policy: Policy, batch: TrainBatch, weights: list[Tensor]) -> float:
    """The batch's loss at these weights, which are left in the policy."""
    from sfpo.algorithms.trajectory import put_

    put_(policy.parameters(), weights)
    return batch_loss(policy, batch)


def batch_loss(policy: Policy, batch: TrainBatch) -> float:
    """The objective at the policy's current weights, with the whole batch as one mini-batch. Completions with zero advantage
    are skipped unless a KL or entropy term gives them a loss."""
    from sfpo.algorithms.objectives import policy_loss, token_weights

    if batch.old is None:
        raise ValueError("batch.old is None: the loss needs the log-probs of the policy that sampled the batch")
    objective, device = policy.objective, policy.device
    lengths = batch.advantages.new_tensor(batch.lengths).long()
    with_loss = (batch.advantages != 0) | bool(objective.kl_coefficient or objective.entropy_coefficient)
    if not with_loss.any():
        return 0.0
    rows, tokens = with_loss.nonzero().flatten().tolist(), with_loss.repeat_interleave(lengths)
    weights = token_weights(objective.aggregation, lengths, policy.max_completion_tokens)
    logprobs, entropy = policy.score([batch.prompt_ids[row] for row in rows], [batch.completion_ids[row] for row in rows])
    loss, _ = policy_loss(
        objective,
        logprobs,
        batch.old.logprobs[tokens.to(device)],
        entropy,
        batch.advantages[with_loss].to(device),
        lengths[with_loss].to(device),
        weights[tokens].to(device),
        None if batch.sampler_logprobs is None else batch.sampler_logprobs[tokens].to(device),
    )
    return loss.item()


if __name__ == "__main__":
    main()
