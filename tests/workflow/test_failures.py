"""The report of failures names each unfinished job with the last words of its log."""

from workflow.failures import failure_report, unfinished


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_failed_and_why(tmp_path):
    names = (
        "runs/tiny/m/d/grpo/seed0",
        "runs/tiny/m/d/sfpo/seed0",
        "evaluations/tiny/m/base",
        "evaluations/tiny/m/d/sfpo/seed0",
    )
    paths = [f"{name}/settings.json" for name in (*names, "data/tiny/train/d", "results/tiny/items/table1")]
    write(tmp_path / names[0] / "summary.json")
    write(tmp_path / names[2] / "results.json")
    write(tmp_path / "logs/tiny/m/d/sfpo/seed0/train.log", "start\n 1%\r 2%\nTraceback\n\nDiskFull: no room\n")
    assert list(unfinished(paths, tmp_path)) == [names[1], names[3]]
    report = failure_report(paths, tmp_path).splitlines()
    assert report[0].startswith(f"not finished: {names[1]} (") and report[0].endswith("train.log)")
    assert [line.strip() for line in report[1:4]] == ["2%", "Traceback", "DiskFull: no room"]
    assert report[4:] == [f"not started:  {names[3]}"]
