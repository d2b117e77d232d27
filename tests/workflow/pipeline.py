"""The whole graph on a two-step configuration, in copies of the present tree."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@t",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@t",
}


def run(folder: Path, *command: str, ok: bool = True) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False)
    output = done.stdout + done.stderr
    logs = "".join(f"\n--- {path}\n{path.read_text()[-1500:]}" for path in folder.glob("logs/**/*.log")) if ok else ""
    assert (done.returncode == 0) == ok, f"{' '.join(command)} gave {done.returncode}\n{output[-5000:]}{logs[-20000:]}"
    return output


ITEMS = ("table1", "figure1", "figure2", "figure3", "figure4", "figure8", "arms", "targets", "regime")
REPORT = dict.fromkeys((*ITEMS, "metrics", "runs_page", "completions_page", "report_page", "all"), 1)


def planned(folder: Path) -> Counter:
    """Rule -> number of jobs that a dry run lists."""
    heads = [line.removeprefix("local").removesuffix(":").split() for line in run(folder, "snakemake", "-n").splitlines()]
    return Counter(words[1] for words in heads if len(words) == 2 and words[0] == "rule")


def finished(output: str) -> Counter:
    """Rule -> number of jobs that Snakemake says it has finished."""
    return Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output))


def two_steps(params: dict) -> dict:
    """The tiny suite, cut down: one seed, two steps, few problems, a model that is hardly warmed up."""
    tiny = params["suites"]["tiny"]
    tiny["seeds"] = [0]
    tiny["train"].update(steps=2, prompts_per_step=4, completions_per_prompt=4, mini_batch_prompts=2)
    tiny["execution"]["save_every"] = 1
    tiny["train"]["validation"] = {"every": 1, "prompts": 4, "samples": 2}
    tiny["evaluate"]["limit"] = 5
    params["models"]["tiny-qwen2"]["warm_up"].update(
        batch_size=4, max_batches=2, check_every=1, check_prompts=4, pass_rate=[0.0, 1.0]
    )
    params["datasets"]["arithmetic"]["parts"]["generated"]["tasks"] = {"sums": 40, "stories": 40}
    params["datasets"]["arithmetic"]["validation_rows"] = 8
    return params


@contextmanager
def changing(folder: Path) -> Iterator[dict]:
    """params.yaml as a dict that is written back."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    yield params
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def change_alpha(folder: Path, alpha: float) -> None:
    with changing(folder) as params:
        params["arms"]["sfpo"]["alpha"] = alpha


def seen(folder: Path) -> dict[str, str]:
    """Run -> hash of the settings that its result records."""
    summaries = sorted(folder.glob("runs/*/*/*/*/seed*/summary.json"))
    return {str(path.parent.relative_to(folder)): json.loads(path.read_text())["settings_hash"] for path in summaries}


def copy_of_the_project(folder: Path) -> Path:
    """The present tree's source, without results."""
    listed = run(PROJECT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in listed:
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    shutil.rmtree(folder / "results", ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    return folder
