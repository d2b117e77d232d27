"""The results tree as a fixture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from report_factory import made_from, report_settings, write_results

from sfpo.settings import ReportSettings


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., ReportSettings]:
    """A function that writes a results tree below ``tmp_path`` and returns its settings."""

    def make(**shape: tuple) -> ReportSettings:
        settings = report_settings(**shape)
        write_results(tmp_path, settings)
        return settings.model_copy(update={"made_from": made_from(settings)})

    return make
