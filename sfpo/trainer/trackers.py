"""Experiment trackers: log every number of a metrics record to TensorBoard, Weights & Biases, Trackio or MLflow.

``execution.report_to`` selects them; other trackers are not imported, and nothing is sent unless configured. A resumed run
continues the same tracker run, whose id is derived from the run's name and recipe.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from sfpo.schema import ConfigError

PROJECT = "sfpo"
"""Project (W&B, Trackio) or experiment (MLflow) of the runs; overridden by each library's environment variables."""


class Tracker(Protocol):
    """Interface of a tracker of one run."""

    def append(self, record: dict[str, Any]) -> None:
        """Log the numbers of one step; ``record`` has a key "step"."""

    def flush(self) -> None:
        """Flush this process's buffers."""

    def close(self) -> None:
        """Mark the run as ended."""


def open_tracker(name: str, run: str, key: str, settings: Mapping[str, Any], folder: Path, last_step: int) -> Tracker:
    """Open a tracker by its name in ``execution.report_to``.

    Args:
        run: display name of the run.
        key: identifies the run's recipe; the same after a resume.
        settings: the run's settings, shown in the tracker.
        folder: the run's state folder, where TensorBoard and W&B write.
        last_step: the step after which the run resumes; 0: from the start.

    Raises:
        ConfigError: the library is not installed.
    """
    openers: dict[str, Callable[..., Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": WandB,
        "trackio": Trackio,
        "mlflow": MLflow,
    }
    try:
        return openers[name](run, key, settings, folder, last_step)
    except ModuleNotFoundError as missing:
        raise ConfigError(f"execution.report_to: {name} is not installed; pip install 'sfpo[{name}]' ({missing})") from None


class TensorBoard:
    """Writes event files to ``folder``/tensorboard; on resume, steps after the saved state are purged."""

    def __init__(self, run: str, key: str, settings: Mapping[str, Any], folder: Path, last_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=last_step + 1)

    def append(self, record: dict[str, Any]) -> None:
        for name, value in numbers(record):
            self._writer.add_scalar(name, value, record["step"])

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases. With WANDB_MODE=offline everything stays in ``folder``/wandb, to be uploaded by ``wandb sync``."""

    def __init__(self, run: str, key: str, settings: Mapping[str, Any], folder: Path, last_step: int) -> None:
        import wandb

        self._run = wandb.init(
            project=_unless("WANDB_PROJECT", PROJECT), name=run, id=key, resume="allow", config=dict(settings), dir=str(folder)
        )
        # Use our own step as x axis: W&B drops records whose internal step it has already seen, as after a resume.
        self._run.define_metric("*", step_metric="step")

    def append(self, record: dict[str, Any]) -> None:
        self._run.log({"step": record["step"], **dict(numbers(record))})

    def flush(self) -> None:
        """Nothing to do: W&B writes each record immediately."""

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio: a local database, under TRACKIO_DIR if that is set."""

    def __init__(self, run: str, key: str, settings: Mapping[str, Any], folder: Path, last_step: int) -> None:
        import trackio

        self._run = trackio.init(
            project=_unless("TRACKIO_PROJECT", PROJECT),
            name=f"{run} {key[-6:]}",
            resume="allow",
            config=dict(settings),
            embed=False,
        )

    def append(self, record: dict[str, Any]) -> None:
        self._run.log({name: value for name, value in numbers(record) if name != "step"}, step=record["step"])

    def flush(self) -> None:
        """Nothing to do: Trackio writes in its own thread."""

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI."""

    def __init__(self, run: str, key: str, settings: Mapping[str, Any], folder: Path, last_step: int) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        name = _unless("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        earlier = self._client.search_runs([experiment], f"tags.sfpo_key = '{key}'", max_results=1)
        if earlier:
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(experiment, run_name=run, tags={"sfpo_key": key}).info.run_id
        for setting, value in _flat_texts(settings):
            self._client.log_param(self._id, setting, value)

    def append(self, record: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now = round(1000 * record["seconds"]["total"]) if "seconds" in record else 0
        metrics = [Metric(name, value, now, record["step"]) for name, value in numbers(record)]
        self._client.log_batch(self._id, metrics=metrics)

    def flush(self) -> None:
        """Nothing to do: ``log_batch`` returns after the batch is stored."""

    def close(self) -> None:
        self._client.set_terminated(self._id)


def run_key(run: str, state_key: str) -> str:
    """An id that every tracker accepts: letters, digits and '-'.

    >>> run_key("tiny/tiny-qwen2/sums/sfpo/seed0", "ab12")
    'tiny-tiny-qwen2-sums-sfpo-seed0-ab12'
    """
    return re.sub(r"[^A-Za-z0-9-]+", "-", f"{run}-{state_key}")[-120:].lstrip("-")


def numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield (key, number) for every number of a record; nested keys are joined as a/b and a/0/b."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}/")
        elif isinstance(value, list):
            yield from numbers({str(index): entry for index, entry in enumerate(value)}, f"{prefix}{key}/")
        elif isinstance(value, bool | int | float):
            yield f"{prefix}{key}", float(value)


def _flat_texts(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat_texts(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)[:500]


def _unless(variable: str, value: str) -> str:
    return os.environ.get(variable, value)
