"""Progress display of the workflow: finished and remaining jobs, the state of each running job, and the estimated time left.

In a terminal it is a live display; otherwise (log file, CI) it prints a summary every minute. It uses Snakemake's log events
and the files that jobs write anyway, in a separate thread: jobs never wait for it, and an error in it ends only the display.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

DURATIONS = Path(".snakemake/durations.json")
"""Rule -> seconds that its last finished job took."""
EVERY = 60.0
"""Seconds between two summaries in plain text."""
SHOWN_INSTEAD = (
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.PROGRESS,
    LogEvent.RESOURCES_INFO,
    LogEvent.RUN_INFO,
    LogEvent.SHELLCMD,
)
"""Snakemake's log events that the display replaces."""
NO_NEWS = "Select jobs to execute..."
"""Logged at every turn of Snakemake's scheduler."""
AGGREGATES = ("all", "prepare", "train", "evaluate", "report")
"""Rules that only collect the outputs of others."""


@dataclass
class Job:
    """A running job."""

    rule: str
    wildcards: Mapping[str, str]
    output: list[str]
    log: list[str]
    started: float = field(default_factory=time.monotonic)
    first: tuple[float, int] | None = None
    """Time and number of the first step of this training job that the display has seen."""

    @property
    def name(self) -> str:
        return " ".join([self.rule.replace("_", " "), "/".join(map(str, self.wildcards.values()))]).strip()

    def state(self) -> tuple[str, float | None]:
        """Its state as text, and the estimated seconds left, if known."""
        try:
            folders = [Path(output).parent for output in self.output if output.startswith("runs/")]
            found = self._training(folders[0]) if folders else None
        except (OSError, ValueError, KeyError):  # the file is being written or was removed
            found = None
        return found or (last_line(self.log), None)

    def _training(self, folder: Path) -> tuple[str, float | None] | None:
        lines = sorted(folder.glob("state/*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
        record = json.loads(last_line([str(lines[-1])]) or "{}") if lines else {}
        if not record:
            return None
        steps = json.loads((folder / "settings.json").read_text())["recipe"]["train"]["steps"]
        now, step = time.monotonic(), record["step"]
        self.first = self.first or (now, step)
        since, at = self.first
        left = (steps - step) * (now - since) / (step - at) if step > at else None
        rate = record["tokens"] / record["seconds"]["total"] if record["seconds"]["total"] else 0.0
        words = f"step {step} of {steps}, reward {record['reward']:.2f}, accuracy {100 * record['accuracy']:.0f}%"
        return f"{words}, {rate:,.0f} tokens/s", left


class Progress(logging.Handler):
    """Tracks the jobs of one run of the workflow.

    Args:
        console: output of the display.
        durations: file with the durations of earlier jobs.
        others: logging handlers that write to the same terminal.
    """

    def __init__(
        self,
        console: Console | None = None,
        durations: Path = DURATIONS,
        others: Sequence[logging.StreamHandler] = (),
    ) -> None:
        super().__init__()
        self.others = others
        self.console = console or Console(stderr=True)
        self.durations_file = durations
        self.durations: dict[str, float] = _read(durations)
        self.planned: Counter[str] = Counter()
        self.running: dict[int, Job] = {}
        self.done = 0
        self.failed: set[int] = set()
        self.width = 1
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with self._lock:
                self._follow(getattr(record, "event", None), record.__dict__)
        except Exception:  # an error of the display must not fail the workflow
            self.handleError(record)

    def _follow(self, event: Any, fields: Mapping[str, Any]) -> None:
        if event == LogEvent.RUN_INFO:
            self.planned = Counter(
                {rule: count for rule, count in fields["stats"].items() if rule not in (*AGGREGATES, "total")}
            )
            self._start()
        elif event == LogEvent.JOB_INFO and fields["rule_name"] not in AGGREGATES:  # logged as the job begins
            output, logs = ([str(path) for path in fields[key] or []] for key in ("output", "log"))
            self.running[fields["jobid"]] = Job(fields["rule_name"], dict(fields["wildcards"] or {}), output, logs)
            self.failed.discard(fields["jobid"])  # it is tried again
            self.width = max(self.width, len(self.running))
        elif event == LogEvent.JOB_FINISHED:
            self._finished(self.running.pop(fields["job_id"], None))
        elif event == LogEvent.JOB_ERROR:
            self.running.pop(fields["jobid"], None)
            self.failed.add(fields["jobid"])

    def _finished(self, job: Job | None) -> None:
        if job is None:
            return
        self.done += 1
        self.planned[job.rule] -= 1
        self.durations[job.rule] = time.monotonic() - job.started
        self.durations_file.parent.mkdir(parents=True, exist_ok=True)
        self.durations_file.write_text(json.dumps(self.durations))

    def seconds_left(self, states: list[tuple[Job, str, float | None]]) -> float | None:
        """Estimated seconds until all jobs are done, from earlier durations of each rule; None: a rule has no duration yet."""
        waiting = Counter(self.planned)
        of_running = []
        for job, _, left in states:
            waiting[job.rule] -= 1
            if left is None:
                usual = self.durations.get(job.rule)
                if usual is None:
                    return None
                left = max(0.0, usual - (time.monotonic() - job.started))
            of_running.append(left)
        if any(count > 0 and rule not in self.durations for rule, count in waiting.items()):
            return None
        later = sum(count * self.durations[rule] for rule, count in waiting.items() if count > 0)
        return max([(sum(of_running) + later) / self.width, *of_running])

    def _states(self) -> list[tuple[Job, str, float | None]]:
        with self._lock:
            running = list(self.running.values())
        return [(job, *job.state()) for job in running]

    def headline(self, states: list[tuple[Job, str, float | None]]) -> str:
        total = self.done + sum(self.planned.values())
        left = self.seconds_left(states)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{self.done} of {total} jobs done{failed}, {len(states)} running" + (
            f", about {clock(left)} left" if left else ""
        )

    def plain(self) -> str:
        """The summary in plain text, for a log."""
        states = self._states()
        lines = [f"    {job.name}: {words}" + (f", {clock(left)} left" if left else "") for job, words, left in states]
        return "\n".join([f"[{time.strftime('%H:%M:%S')}] {self.headline(states)}", *lines])

    def __rich__(self) -> Group:
        states = self._states()
        table = Table.grid(padding=(0, 2))
        for job, words, left in states:
            table.add_row(
                Text(job.name),
                clock(time.monotonic() - job.started),
                Text(words, style="dim"),
                f"{clock(left)} left" if left else "",
            )
        total = self.done + sum(self.planned.values())
        return Group(Text(self.headline(states), style="bold"), ProgressBar(total=max(1, total), completed=self.done), table)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._show, daemon=True, name="progress")
            self._thread.start()

    def _show(self) -> None:
        try:
            if self.console.is_terminal:
                with Live(self, console=self.console, refresh_per_second=1, transient=True):
                    for handler in self.others:  # Snakemake's messages go above the display
                        handler.setStream(sys.stderr)
                    self._over.wait()
            else:
                while not self._over.wait(EVERY):
                    self.console.print(self.plain(), markup=False, highlight=False, soft_wrap=True)
        except Exception as fault:
            logging.getLogger(__name__).warning("the progress display has stopped: %r", fault)

    def stop(self) -> None:
        """Remove the display; printed messages stay."""
        self._over.set()
        if self._thread:
            self._thread.join(timeout=5)


def follow(dry_run: Callable[[], bool]) -> Progress:
    """Attach a display to Snakemake's logger. In a terminal it replaces Snakemake's messages on jobs, but not its errors.

    Args:
        dry_run: whether Snakemake only shows what it would do, and so needs its own messages; known once it has started.
    """
    logger = logging.getLogger("snakemake.logging")
    others = [handler for handler in logger.handlers if isinstance(handler, logging.StreamHandler)]
    progress = Progress(others=others)

    def is_new(record: logging.LogRecord) -> bool:
        replaced = progress.console.is_terminal and getattr(record, "event", None) in SHOWN_INSTEAD
        return not replaced and record.msg != NO_NEWS

    for handler in others:
        handler.addFilter(lambda record: dry_run() or is_new(record))
    progress.addFilter(lambda record: not dry_run())
    logger.addHandler(progress)
    return progress


def last_line(paths: list[str], tail: int = 2**16) -> str:
    """The last line of the first of these files that has one (each redraw of a progress bar counts as a line)."""
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - tail))
                lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
        except OSError:
            continue
        if words := [line.strip() for line in lines if line.strip()]:
            return words[-1] if path.endswith(".jsonl") else words[-1][:100]
    return ""


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as in 1:02:03; under an hour as in 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _read(path: Path) -> dict[str, float]:
    try:
        return {str(rule): float(seconds) for rule, seconds in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}
