"""Exports open in transformers; a state gives back every bit; a damaged one is passed over."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sfpo.manifest import read_manifest
from sfpo.trainer import checkpoint as checkpoint_module
from sfpo.trainer.background import Background
from sfpo.trainer.checkpoint import DiskFull, export_checkpoint, load_state, newest_state, save_state
from sfpo.trainer.policy import Policy
from sfpo.types import OldPolicy, TrainBatch

BLOCKING = Background(threaded=False)


@pytest.fixture
def make_policy(checkpoint, params):
    train = params.suites["tiny"].train.model_copy(update={"mini_batch_prompts": 1})
    return lambda: Policy(checkpoint, params.objectives["grpo"], train, params.suites["tiny"].execution, 40)


def descend(policy: Policy) -> None:
    old = OldPolicy(torch.full((3,), -3.0), entropy=1.0)
    batch = TrainBatch([[5, 6]] * 2, [[7], [8, 9]], torch.tensor([1.0, -1.0]), old, group_size=2)
    policy.descend(batch)


def test_an_export_opens_in_transformers_with_its_tokenizer(make_policy, checkpoint, tmp_path):
    policy = make_policy()
    descend(policy)
    export_checkpoint(policy, checkpoint, tmp_path / "best", step=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "best")
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(dict(model.named_parameters())[name], parameter)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert AutoTokenizer.from_pretrained(tmp_path / "best").chat_template
    assert read_manifest(tmp_path / "best")["step"] == 1
    assert not list(tmp_path.rglob("*.bin")) and not (tmp_path / ".best.partial").exists()


@pytest.mark.parametrize(("file_bytes", "files"), [(2**25, 1), (1, 26 * 4)], ids=["one file", "a file each"])
def test_a_loaded_state_goes_on_bit_for_bit(file_bytes, files, make_policy, tmp_path, monkeypatch):
    # 26 parameters (2 layers of 12, the tied embedding, the last norm), each with both moments and the number of steps.
    monkeypatch.setattr(checkpoint_module, "STATE_FILE_BYTES", file_bytes)
    through = make_policy()
    descend(through)
    save_state(through, tmp_path, 1, {"rule": {}}, BLOCKING)
    descend(through)
    resumed = make_policy()
    path, state = newest_state(tmp_path)
    load_state(resumed, path)
    descend(resumed)
    assert state == {"rule": {}}
    assert len(list(path.glob("*.safetensors"))) == files
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), resumed.parameters(), strict=True))


def test_a_damaged_state_is_passed_over_and_said(make_policy, tmp_path, caplog):
    policy = make_policy()
    for step in (1, 2):
        descend(policy)
        save_state(policy, tmp_path, step, {"step": step}, BLOCKING)
    (shards,) = (tmp_path / "step_000002").glob("*.safetensors")
    damaged = bytearray(shards.read_bytes())
    damaged[-1] ^= 1
    shards.write_bytes(damaged)
    assert newest_state(tmp_path)[1] == {"step": 1}
    assert "damaged" in caplog.text
    (tmp_path / "step_000001/manifest.json").unlink()
    assert newest_state(tmp_path) is None


def test_a_full_disk_is_told_before_anything_is_touched(make_policy, tmp_path, monkeypatch):
    policy = make_policy()
    descend(policy)
    save_state(policy, tmp_path, 1, {"step": 1}, BLOCKING)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(DiskFull, match=r"a save needs \d+ MiB, but the disk has 0 MiB left") as error:
        save_state(policy, tmp_path, 2, {"step": 2}, BLOCKING)
    with pytest.raises(DiskFull):
        export_checkpoint(policy, tmp_path, tmp_path / "best")
    # 3 float32 copies of the weights and a tenth.
    needed = 1.1 * 3 * 4 * sum(parameter.numel() for parameter in policy.parameters()) / 2**20
    assert f"needs {needed:.0f} MiB" in str(error.value)
    assert newest_state(tmp_path)[1] == {"step": 1}


def test_an_export_replaces_the_one_before_it(make_policy, checkpoint, tmp_path):
    policy = make_policy()
    for step in (1, 2):
        export_checkpoint(policy, checkpoint, tmp_path / "best", step=step)
    assert read_manifest(tmp_path / "best")["step"] == 2 and [path.name for path in tmp_path.iterdir()] == ["best"]
