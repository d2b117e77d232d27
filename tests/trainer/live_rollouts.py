"""A program of test_torchrun: two steps of graded rollouts through live engines, alone or under torchrun.

``live_rollouts.py <settings> <out>``: between the steps the weights move and go to the engines. Every rank writes its groups of
both steps, and what the first validation sees, to <out>/<rank>.json.
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch

from sfpo.algorithms.weights import local
from sfpo.ranks import init_distributed
from sfpo.rewards.math_answer import Grader
from sfpo.settings import RunSettings, load_settings
from sfpo.trainer.background import Background
from sfpo.trainer.loop import TrainingJob
from sfpo.trainer.run_store import RunStore

if __name__ == "__main__":
    settings, out = map(Path, sys.argv[1:])
    with Grader(workers=1) as grader:
        ranks = init_distributed()
        run = load_settings(RunSettings, settings)
        job = TrainingJob(run, RunStore(run, out / "run", ranks, Background(threaded=False)), grader, ranks)
        validation = run.recipe.train.validation
        seen = [job.collector.sample(job.validation_prompts, validation.samples, validation.sampling, (0, "validate"))]
        for step in (1, 2):
            rollouts = job.collector.training_groups(job.prompts, step)
            seen += [rollouts.groups, rollouts.drawn]
            with torch.no_grad():
                for parameter in job.policy.parameters():
                    local(parameter).mul_(1.05)
            job.engine.wake(job.policy.weights())
        groups = [[dataclasses.asdict(group) for group in groups] for groups in seen]
        (out / f"{ranks.rank}.json").write_text(json.dumps(groups))
