"""Two processes on one run folder: the second stops; a holder that dies leaves no lock behind."""

import subprocess
import sys

import pytest

from sfpo.trainer.lock import RunLocked, run_lock

HOLD = """
import pathlib, sys
from sfpo.trainer.lock import run_lock
with run_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_process_stops_and_names_the_first(holder, tmp_path):
    with pytest.raises(RunLocked, match=rf"process {holder.pid} on .* is already training this run"), run_lock(tmp_path):
        pass


def test_the_lock_dies_with_its_holder(holder, tmp_path):
    holder.kill()
    holder.wait()
    with run_lock(tmp_path):
        pass
    with run_lock(tmp_path):  # and is free again after a regular end
        pass
