"""Files whose content is the recorded one get their time back; changed files keep theirs."""

import os

from workflow.ledger import record_mtimes, restore_mtimes


def age(path) -> int:
    return path.stat().st_mtime_ns


def test_a_checkout_loses_times_and_the_ledger_gives_them_back(tmp_path):
    old, young = tmp_path / "runs/old.json", tmp_path / "runs/deep/young.json"
    young.parent.mkdir(parents=True)
    old.write_text("1")
    young.write_text("2")
    os.utime(old, ns=(1_000, 1_000))
    os.utime(young, ns=(2_000, 2_000))
    record_mtimes(["runs", "absent"], tmp_path)
    os.utime(old, ns=(9_000, 9_000))  # the checkout: the older file comes last
    os.utime(young, ns=(8_000, 8_000))
    assert restore_mtimes(["runs", "absent"], tmp_path) == 2
    assert (age(old), age(young)) == (1_000, 2_000)
    assert restore_mtimes(["runs"], tmp_path) == 0


def test_a_changed_file_keeps_its_new_time(tmp_path):
    file = tmp_path / "runs/a.json"
    file.parent.mkdir()
    file.write_text("1")
    os.utime(file, ns=(1_000, 1_000))
    record_mtimes(["runs"], tmp_path)
    file.write_text("2")
    assert restore_mtimes(["runs"], tmp_path) == 0 and age(file) > 1_000
    file.write_text("1")  # and the old content is the old result again
    assert restore_mtimes(["runs"], tmp_path) == 1 and age(file) == 1_000


def test_weights_and_resume_state_are_not_listed_and_deleted_files_are_forgotten(tmp_path):
    for name in ("best/model.safetensors", "best/manifest.json", "state/trainer.json"):
        (tmp_path / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name).write_text(name)
    record_mtimes(["runs"], tmp_path)
    ledger = (tmp_path / "runs/ledger.json").read_text()
    assert "best/manifest.json" in ledger and "safetensors" not in ledger and "state/" not in ledger
    (tmp_path / "runs/best/manifest.json").unlink()
    assert restore_mtimes(["runs"], tmp_path) == 0
    record_mtimes(["runs"], tmp_path)
    assert "best/manifest.json" not in (tmp_path / "runs/ledger.json").read_text()
