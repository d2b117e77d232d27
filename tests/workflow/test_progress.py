"""What the display of the workflow's progress says, from Snakemake's log events and the files that jobs write."""

import io
import json
import logging
import time

import pytest
from rich.console import Console
from snakemake_interface_logger_plugins.common import LogEvent

from workflow.progress import Progress, clock, last_line

RUN = "runs/tiny/tiny-qwen2/arithmetic/sfpo/seed0"


@pytest.fixture
def progress(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    display = Progress(Console(file=io.StringIO(), width=200), tmp_path / "durations.json")
    yield display
    display.stop()


def say(display: Progress, event: LogEvent, **fields) -> None:
    display.handle(logging.makeLogRecord({"event": event, "levelno": logging.INFO, **fields}))


def begin(display: Progress, job: int, rule: str, folder: str = RUN, log: str = "logs/job.log") -> None:
    fields = {"rule_name": rule, "wildcards": {"arm": "sfpo", "seed": "0"}, "output": [f"{folder}/summary.json"], "log": [log]}
    say(display, LogEvent.JOB_INFO, jobid=job, **fields)


def write_step(tmp_path, step: int) -> None:
    folder = tmp_path / RUN / "state/abc"
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / RUN / "settings.json").write_text(json.dumps({"recipe": {"train": {"steps": 60}}}))
    line = {"step": step, "reward": 0.41, "accuracy": 0.4, "tokens": 1000 * step, "seconds": {"total": 2.0 * step}}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_a_training_job_shows_its_step_reward_rate_and_time_left(progress, tmp_path):
    say(progress, LogEvent.RUN_INFO, stats={"train_run": 1, "all": 1, "total": 2})
    begin(progress, 1, "train_run")
    write_step(tmp_path, 10)
    assert "train run sfpo/0: step 10 of 60, reward 0.41, accuracy 40%, 500 tokens/s" in progress.plain()
    (job,) = progress.running.values()
    job.first = (time.monotonic() - 20, 5)  # 5 steps in 20 s: 4 s each, and 50 are left
    _, left = job.state()
    assert left == pytest.approx(200, abs=2)
    assert "3:2" in progress.plain() or "3:19" in progress.plain()


def test_another_job_shows_the_last_line_of_its_log(progress, tmp_path):
    say(progress, LogEvent.RUN_INFO, stats={"evaluate_run": 1, "total": 1})
    begin(progress, 1, "evaluate_run", folder="evaluations/x")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/job.log").write_text("started\n 10%|#    |\r 20%|##   |")
    assert "evaluate run sfpo/0: 20%|##   |" in progress.plain()


def test_counts_and_the_time_left_of_all(progress):
    say(progress, LogEvent.RUN_INFO, stats={"train_run": 3, "report": 1, "total": 4})
    assert progress.headline([]) == "0 of 3 jobs done, 0 running"  # no job of this rule was ever seen to end
    begin(progress, 1, "train_run")
    progress.running[1].started -= 40
    say(progress, LogEvent.JOB_FINISHED, job_id=1)
    # One of three took 40 s; two are left, one at a time: 80 s.
    assert progress.headline([]) == "1 of 3 jobs done, 0 running, about 1:20 left"
    begin(progress, 2, "train_run")
    progress.running[2].started -= 30
    # 10 s of the running one, and 40 s.
    assert progress.seconds_left([(progress.running[2], "", None)]) == pytest.approx(50, abs=1)
    later = Progress(Console(file=io.StringIO()), progress.durations_file)
    assert later.durations["train_run"] == pytest.approx(40, abs=1)  # the next start knows


def test_a_failed_job_is_counted_until_it_is_tried_again(progress):
    say(progress, LogEvent.RUN_INFO, stats={"train_run": 1, "total": 1})
    begin(progress, 1, "train_run")
    say(progress, LogEvent.JOB_ERROR, jobid=1)
    assert progress.headline([]) == "0 of 1 jobs done, 1 failed, 0 running"
    begin(progress, 1, "train_run")
    assert not progress.failed and len(progress.running) == 1


def test_torn_files_and_unknown_events_stop_nothing(progress, tmp_path, capsys):
    say(progress, LogEvent.RUN_INFO, stats={"train_run": 1, "total": 1})
    begin(progress, 1, "train_run")
    write_step(tmp_path, 3)
    with (tmp_path / RUN / "state/abc/metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    assert "train run sfpo/0" in progress.plain()
    say(progress, LogEvent.JOB_FINISHED)  # a field is missing: an error of the display, not of the workflow
    say(progress, LogEvent.DEBUG_DAG)


def test_words():
    assert [clock(seconds) for seconds in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]
    assert last_line(["/no/such/file"]) == ""
