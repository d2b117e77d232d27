"""The faults of benchmarks.chaos: each is injected into a job, which must then end with the results of an undisturbed run.

Each function returns a description of what happened.

Raises:
    Unexpected: a job did not behave as expected.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.chaos_jobs import ARMS, SAVE_EVERY, Job, Lab, Pace, Unexpected, demand, differences, said
from sfpo.manifest import read_manifest
from sfpo.seeding import rng
from sfpo.trainer.checkpoint import newest_state
from sfpo.trainer.loop import Interrupted
from tests.changes import changed

AIMS = ("start", "steps", "steps", "save", "save")
"""Targets of the kills of one run, in random order after a first kill during its first export, before anything is saved."""
PUBLISHED = ("best", "last", "exports")
"""The appearance of each, in this order, is followed by a kill."""
TRIES = 20
CHANGES_OF_EXECUTION: tuple[dict[str, Any], ...] = (
    {"execution__engine__kv_cache_gib": 0.25, "execution__keep_final_state": False},
    {"execution__save_every": 3, "execution__max_skipped_updates": 2},
    {
        "execution__engine__kv_cache_gib": 0.5,
        "execution__keep_final_state": True,
        "execution__save_every": SAVE_EVERY,
        "execution__max_skipped_updates": 8,
    },
)
"""Changes of execution settings that do not affect rounding. The last equals the undisturbed run, whose summary is compared."""
SELDOM = 4 * SAVE_EVERY
"""Steps between saves, for faults that need a validation between two saves."""
LONG_LINE = 200 * 2**20
MAX_SKIPPED = 3
OVERFLOWING_REWARD = 1e308
"""Finite in the settings' float64 but infinite in float32: groups with mixed outcomes get NaN advantages."""
DESTRUCTIVE_RATE = 1e30
RANKS, RANK_KILLS, STEPS_APART = 2, 10, 3
LIMIT_OF_AN_END = 60.0
"""Seconds from the death of one process to the end of the job."""
AMPLE = 100
"""Disk space, as a multiple of the weights, that is enough for a whole run."""


class Skipped(RuntimeError):
    """This machine does not allow the fault."""


# ---------------------------------------------------------------------------------------------- kills


@dataclass(frozen=True)
class Kill:
    """Where a SIGKILL hit, as seen from the files on disk."""

    run: str
    aim: str
    landed: str
    after_step: int
    newest_state: int
    """Step; 0: none."""
    unfinished: dict[str, list[str]]


def killed(lab: Lab, arm: str, seed: int, aims: tuple[str, ...] = AIMS) -> list[Kill]:
    """Kill a run during its first export, then once for each target in random order, and let it finish."""
    random = rng("chaos", arm, seed)
    kills = []
    with lab.job("killed", arm, seed) as job:
        for aim in ("export", *random.sample(aims, len(aims))):
            job.launch()
            reach(job, aim, lab.paces[arm, seed], random)
            job.kill()
            kills.append(post_mortem(job, aim))
        job.finish(lab.reference(arm, seed))
    return kills


def rank_killed(lab: Lab, arm: str) -> str:
    """Kill one of a run's two processes at a random moment, several times."""
    random = rng("chaos", "ranks", arm)
    with lab.job("two ranks undisturbed", arm, 0, RANKS) as whole:
        demand(whole.launch().end() == 0, f"the undisturbed run failed: {whole.tail()}")
    seconds, steps = [], []
    with lab.job("two ranks", arm, 0, RANKS) as job:
        for kill in range(RANK_KILLS):
            job.launch().wait_beyond(STEPS_APART * kill)
            time.sleep(random.uniform(0.0, lab.paces[arm, 0].between_saves))
            seconds.append(job.kill_a_rank(random.randrange(RANKS)))
            steps.append(job.step())
        job.finish(whole.folder)
    demand(max(seconds) < LIMIT_OF_AN_END, f"the job took {max(seconds):.0f} s to end")
    text = f"{RANK_KILLS} kills after steps {', '.join(map(str, steps))}; ended within {max(seconds):.0f} s, naming the process"
    return f"{text}; same bits as {RANKS} undisturbed processes"


def reach(job: Job, aim: str, pace: Pace, random: Random) -> None:
    """Wait for a random moment of kind ``aim``: start, steps (after a new save), save (during the next save), export."""
    if aim == "start":
        time.sleep(random.uniform(0.0, pace.start_up))
        return
    if aim != "export":
        job.wait_for_a_save()
    if aim == "steps":
        time.sleep(random.uniform(0.0, pace.between_saves))
        return
    begun = ".partial" if aim == "save" else ".best_*.partial"
    job.wait(lambda: any(job.changed(folder) for folder in job.state.glob(begun)))
    time.sleep(random.uniform(0.0, pace.save))


def post_mortem(job: Job, aim: str) -> Kill:
    unfinished = job.unfinished()
    if not job.changed(job.state / "metrics.jsonl"):
        landed = "start-up"
    elif unfinished:
        landed = "save" if ".partial" in unfinished else "export"
    else:
        landed = "steps"
    run = f"{job.settings.run.arm} seed {job.settings.run.seed}"
    return Kill(run, aim, landed, job.step(), job.saved(), unfinished)


def describe_kills(kills: list[Kill]) -> str:
    where = Counter(kill.landed for kill in kills)
    steps = ", ".join(str(step) for step in sorted({kill.after_step for kill in kills}))
    counts = ", ".join(f"{count} in {place}" for place, count in where.most_common())
    return f"{len(kills)} kills in {len({kill.run for kill in kills})} runs: {counts}; after steps {steps}; same bits"


# ---------------------------------------------------------------------------------------------- the other faults


def terminated(lab: Lab, arm: str) -> str:
    """Send SIGTERM twice, each time after a new save."""
    random, stopped = rng("chaos", "stop", arm), []
    with lab.job("stopped", arm, 0) as job:
        for _ in range(2):
            job.launch().wait_for_a_save()
            time.sleep(random.uniform(0.0, lab.paces[arm, 0].between_saves))
            job.process.send_signal(signal.SIGTERM)
            status = job.end()
            demand(status == Interrupted.EXIT_CODE, f"exit status {status}")
            match = said(r"SIGTERM: saved after step (\d+)", job.log(), "the log does not say that it saved")
            demand(int(match[1]) == job.saved(), "the log names another step than the saved one")
            stopped.append(job.saved())
        job.finish(lab.reference(arm, 0))
        demand(f"resuming after step {stopped[-1]}" in job.log(), "it did not resume from there")
    return f"exit status {Interrupted.EXIT_CODE} twice, saved after steps {' and '.join(map(str, stopped))}; same bits"


def corrupted(lab: Lab, arm: str) -> str:
    """Corrupt the newest of two states, twice: by a flipped byte, and by a truncated file."""
    seen = []
    with lab.job("corrupted", arm, 0) as job:
        for damage in (flip_a_byte, cut_in_half):
            job.launch().wait_for_a_save(2 * SAVE_EVERY)
            job.kill()
            newest = job.state / f"step_{job.saved():06d}"
            damage(newest)
            older = [int(path.name.removeprefix("step_")) for path in job.state.glob("step_*") if path != newest]
            job.launch().wait(lambda: "resuming after step" in job.log() or job.step() == 0)
            silent = f"the log does not report the corrupt state: {job.tail()}"
            match = said(r"(step_\d+) is not used: \S+/(\S+): (damaged)", job.log(), silent)
            demand(match[1] == newest.name, silent)
            demand(f"resuming after step {max(older)}" in job.log(), "the previous state was not used")
            seen.append(f"{match[2]} of {match[1]} reported as {match[3]}, resumed after step {max(older)}")
            job.kill()
        job.finish(lab.reference(arm, 0))
    return "; ".join([*seen, "same bits"])


def flip_a_byte(state: Path) -> None:
    (path,) = state.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_in_half(state: Path) -> None:
    (path,) = state.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def locked(lab: Lab, arm: str) -> str:
    """Start a second process on the folder of a running job, which is suspended so that it cannot end in the meantime."""
    with lab.job("locked", arm, 0) as job, Job(job.folder, job.settings) as second:
        job.launch().wait_for_a_save()
        job.process.send_signal(signal.SIGSTOP)
        status = second.launch().end()
        ended = f"the second ended with {status}: {second.tail()}"
        demand(status == 1, ended)
        match = said(r"RunLocked: \S+: (process (\d+) on \S+) is already training this run", second.log(), ended)
        demand(int(match[2]) == job.process.pid, f"it named {match[1]}, the first is process {job.process.pid}")
        job.process.send_signal(signal.SIGCONT)
        demand(job.end() == 0, "the first failed")
        found = differences(lab.reference(arm, 0), job.folder)
        demand(not found, f"the first differs from the undisturbed run in {', '.join(found)}")
    return "the second ended with 1 and named the first's process id and host; the first ended with the same bits"


def reconfigured(lab: Lab, arm: str) -> str:
    """Kill a run three times, and restart it with other execution settings each time. In between, start a run with another
    recipe in the same folder, which must not change the first run's state."""
    settings = lab.settings[arm, 0]
    with lab.job("reconfigured", arm, 0) as job:
        for changes in CHANGES_OF_EXECUTION:
            job.launch().wait_for_a_save()
            job.kill()
            job.settings = changed(job.settings, **changes)
        kept = job.saved()
        with Job(job.folder, changed(settings, recipe__seed=settings.recipe.seed + 100)) as other:
            other.launch().wait_for_a_save()
            other.kill()
            kept_apart = f"settings changed: {job.state} was set aside (seed: 0 -> 100"
            demand(kept_apart in other.log(), f"it did not name the state that it leaves alone: {other.tail()}")
        demand(job.saved() == kept, "another recipe's run has touched the state")
        demand(job.launch().end() == 0, f"the restarted run failed: {job.tail()}")
        demand(f"resuming after step {kept}" in job.log(), "it did not resume from its own state")
        shutil.rmtree(other.state)
        found = differences(lab.reference(arm, 0), job.folder)
        demand(not found, f"differs from the undisturbed run in {', '.join(found)}")
    names = [key.removeprefix("execution__").replace("__", ".") for key in CHANGES_OF_EXECUTION[-1]]
    return f"other values of {', '.join(names)}, and another recipe's run in between, whose log names the state; same bits"


def rewritten(lab: Lab, arm: str) -> str:
    """Kill a resuming run while it removes metrics lines after the saved state, which a line of many megabytes slows down."""
    with lab.job("rewritten", arm, 0) as job:
        job.launch().wait_for_a_save()
        job.wait(lambda: job.step() > job.saved())
        job.kill()
        path = job.state / "metrics.jsonl"
        first, *others = path.read_text().splitlines()
        long = json.dumps({**json.loads(first), "pad": "x" * LONG_LINE})
        path.write_text("\n".join([long, *others, ""]))
        before = path.stat().st_size
        job.launch().wait(lambda: any(job.state.glob(".metrics.jsonl.*")), poll_seconds=0.0)
        job.kill()
        demand(any(job.state.glob(".metrics.jsonl.*")), "the kill came too late")
        demand(path.stat().st_size == before, f"{before - path.stat().st_size} bytes of the metrics are lost")
        path.write_text("\n".join([first, *others, ""]))
        job.finish(lab.reference(arm, 0))
    return f"killed with the new file half written, all {1 + len(others)} lines of the old one there; same bits"


def other_ranks(lab: Lab, arm: str) -> str:
    """Kill a run between its best validation so far and the save, and resume it with another number of processes, which rounds
    differently: the published best checkpoint must belong to the resumed trajectory."""
    settings = changed(lab.settings[arm, 0], execution__save_every=SELDOM)
    with Job(lab.folder / "other_ranks" / arm, settings) as job:
        job.launch().wait_for_a_save()
        job.wait(lambda: any(job.changed(folder) for folder in job.state.glob("best_*") if step_of(folder) > job.saved()))
        job.kill()
        abandoned = [step_of(folder) for folder in job.state.glob("best_*") if step_of(folder) > job.saved()]
        demand(bool(abandoned), "the save was faster than the kill")
        job.ranks = RANKS
        demand(job.launch().end() == 0, f"the restarted run failed: {job.tail()}")
        summary = json.loads((job.folder / "summary.json").read_text())
        lines = [json.loads(line) for line in (job.folder / "validation.jsonl").read_text().splitlines()]
        best = max((line for line in lines if line["step"]), key=lambda line: line["accuracy"])  # the first of several
        found = (summary["best_step"], summary["best_validation_accuracy"])
        demand(found == (best["step"], best["accuracy"]), f"summary.json says {found}, validation.jsonl {best}")
        step, written = read_manifest(job.folder / "best")["step"], (job.folder / "best/manifest.json").stat().st_mtime_ns
        demand(step == best["step"], f"best/ is of step {step}")
        demand(step < abandoned[0] or written > job.launched_ns, "best/ was written by the killed process")
    return f"killed after the validation of step {abandoned[0]}; best/ is of step {step}, the best of validation.jsonl"


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("_")[2])


def stopped(lab: Lab, arm: str, fault: str, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(metrics, saved batch) of a run with changed settings, which must stop it."""
    with Job(lab.folder / fault / arm, changed(lab.settings[arm, 0], **changes)) as job:
        status = job.launch().end()
        demand(status == 1 and "NonFiniteUpdates" in job.log(), f"it ended with {status}: {job.tail()}")
        records = [json.loads(line) for line in (job.state / "metrics.jsonl").read_text().splitlines()]
        path = job.state / "poisoned_batch.json"
        demand(str(path) in job.log(), "the log does not say where the batch was saved")
        return records, json.loads(path.read_text())


def poisoned(lab: Lab, arm: str) -> str:
    """A reward that overflows: advantages are NaN, but the weights stay finite."""
    changes = {"recipe__train__reward__correct": OVERFLOWING_REWARD, "execution__max_skipped_updates": MAX_SKIPPED}
    records, batch = stopped(lab, arm, "poisoned", **changes)
    skipped = sum(update["skipped"] for record in records for update in record["updates"])
    poison = batch["advantages"].count(None)  # JSON has no NaN
    demand(poison > 0 and len(batch["advantages"]) == len(batch["completion_ids"]), "the saved batch is sound")
    return (
        f"{skipped} mini-batches skipped and counted in {len(records)} finished steps, stopped with 1 in the next "
        f"after {MAX_SKIPPED} in a row; the saved batch loads: {poison} of its {len(batch['advantages'])} advantages are no "
        "numbers"
    )


def destroyed(lab: Lab, arm: str) -> str:
    """A learning rate that makes the weights overflow: all completions are then wrong, so no gradient shows it."""
    records, batch = stopped(lab, arm, "destroyed", recipe__train__optimizer__learning_rate=DESTRUCTIVE_RATE)
    demand(batch["entropy"] is None, "the saved batch is sound")
    return f"stopped with 1 in step {len(records) + 1}; the saved batch loads: the policy's entropy is not a number"


def published(lab: Lab, arm: str) -> str:
    """Kill a run while it publishes its results, before summary.json marks them as complete."""
    left = []
    with lab.job("published", arm, 0) as job:
        for name in PUBLISHED:
            publish_until(job, name)
            there = [job.folder / one for one in PUBLISHED if job.changed(job.folder / one)]
            left.append(", ".join(f"{len(list(path.iterdir()))} files of {path.name}" for path in there))
        job.finish(lab.reference(arm, 0))
    return f"after the kills there were {'; '.join(left)}; no summary.json; then best/ and last/ whole, same bits"


def publish_until(job: Job, name: str) -> None:
    """Start the job, and kill it as soon as ``name`` exists. Publishing takes about a millisecond, so try several times."""
    for _ in range(TRIES):
        (job.folder / "summary.json").unlink(missing_ok=True)  # like the workflow after a failed job
        job.launch().wait(lambda: job.changed(job.state / ".last.partial") or (job.state / "summary.json").exists())
        job.wait(lambda: job.changed(job.folder / name), poll_seconds=0.0)
        job.kill()
        if not (job.folder / "summary.json").exists():
            return
    raise Unexpected(f"the kill at {name} came too late {TRIES} times")


# ---------------------------------------------------------------------------------------------- disks


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mount a tmpfs of ``size`` bytes on ``folder``; yields the function that resizes it.

    Raises:
        Skipped: this process may not mount.
    """
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        raise Skipped(mounted.stderr.strip())

    def resize(new: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={new}", folder], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def weight_bytes(lab: Lab) -> int:
    return sum(path.stat().st_size for path in Path(lab.settings[ARMS[0], 0].model_path).glob("*.safetensors"))


def too_small(lab: Lab, arm: str) -> str:
    """No space for the second save: a state takes 3 times the weights, the best export once, and a save requires 10% more."""
    weights = weight_bytes(lab)
    with lab.job("disk_small", arm, 0) as job, small_disk(job.folder, 6 * weights) as resize:
        status = job.launch().end()
        ended = f"it ended with {status}: {job.tail()}"
        demand(status == 1, ended)
        match = said(r"a save needs \d+ MiB, but the disk has \d+ MiB left", job.log(), ended)
        state = intact(job, SAVE_EVERY)
        resize(AMPLE * weights)
        job.finish(lab.reference(arm, 0))
    return f"'{match[0]}'; {state} intact; with more room the same bits"


def filled_up(lab: Lab, arm: str) -> str:
    """Another program fills the disk while the second save is being written, after its check of the free space."""
    with lab.job("disk_filled", arm, 0) as job, small_disk(job.folder, AMPLE * weight_bytes(lab)) as resize:
        outside = job.folder.parent / "log.txt"
        (job.folder / "log.txt").symlink_to(outside)  # the full disk has no space for the log
        job.launch().wait_for_a_save()
        job.wait(job.saving)
        job.process.send_signal(signal.SIGSTOP)
        unfinished = job.unfinished()
        resize(shutil.disk_usage(job.folder).used)
        job.process.send_signal(signal.SIGCONT)
        status = job.end()
        demand(status != 0 and "DiskFull" in job.log(), f"it ended with {status}: {job.tail()}")
        demand(".partial" in unfinished, "the disk was full too late, after the save")
        state = intact(job, SAVE_EVERY)
        error = job.log().strip().splitlines()[-1]
        resize(AMPLE * weight_bytes(lab))
        job.finish(lab.reference(arm, 0))
    return f"ended with {status} ('{error}'); {state} intact; with more room the same bits"


def intact(job: Job, step: int) -> str:
    """The name of the newest intact state, which must be that of ``step``."""
    found = newest_state(job.state)
    if found is None:
        raise Unexpected("there is no intact state")
    folder, facts = found
    demand(facts["progress"]["step"] == step, f"the newest intact state is {folder.name}")
    return folder.name
