"""Seeds, batches and manifests: what everything else stands on."""

import json

import pytest
import torch

from sfpo.manifest import read_manifest, write_manifest, write_text
from sfpo.seeding import rng, seed_of
from sfpo.types import OldPolicy, TrainBatch


def test_a_seed_is_a_fixed_function_of_its_parts():
    assert seed_of(0, "rollout", 1, "math/00012", 3) == seed_of(0, "rollout", 1, "math/00012", 3)
    assert 0 <= seed_of("x") < 2**63
    # Golden: a change here changes every number of every run.
    assert seed_of(0, "rollout", 1, "math/00012", 3) == 7991365785280149759
    assert rng(1, "a").random() == rng(1, "a").random()


def test_every_part_and_its_place_and_type_count():
    seeds = {seed_of(1, 2), seed_of(2, 1), seed_of("1", 2), seed_of(12), seed_of(1, 2, ""), seed_of("1, 2")}
    assert len(seeds) == 6


def three_completions(**changes) -> TrainBatch:
    parts = {
        "prompt_ids": [[1], [1], [2], [2]],
        "completion_ids": [[5], [6, 7], [8], [9, 10, 11]],
        "advantages": torch.tensor([1.0, -1.0, 2.0, -2.0]),
        "old": OldPolicy(torch.arange(7.0), entropy=0.5),
        "group_size": 2,
    }
    return TrainBatch(**{**parts, **changes})


def test_mini_batches_are_whole_groups_in_order():
    first, second = three_completions().mini_batches(prompts=1)
    assert first.completion_ids == [[5], [6, 7]] and second.completion_ids == [[8], [9, 10, 11]]
    assert first.old.logprobs.tolist() == [0.0, 1.0, 2.0] and second.old.logprobs.tolist() == [3.0, 4.0, 5.0, 6.0]
    assert second.advantages.tolist() == [2.0, -2.0] and second.lengths == [1, 3]


@pytest.mark.parametrize("changes", [{"advantages": torch.zeros(3)}, {"old": OldPolicy(torch.zeros(6), 0.5)}])
def test_a_batch_whose_parts_do_not_match_is_refused(changes):
    with pytest.raises(ValueError, match=r"old log-probs|as many prompts"):
        three_completions(**changes)


def test_a_manifest_vouches_for_every_byte(tmp_path):
    write_text(tmp_path / "a.txt", "a")
    write_text(tmp_path / "sub/b.txt", "b")
    write_manifest(tmp_path, step=3)
    assert read_manifest(tmp_path)["step"] == 3
    assert set(json.loads((tmp_path / "manifest.json").read_text())["files"]) == {"a.txt", "sub/b.txt"}
    write_text(tmp_path / "a.txt", "x")
    with pytest.raises(ValueError, match=r"a\.txt: damaged"):
        read_manifest(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.txt: listed in the manifest, but missing"):
        read_manifest(tmp_path)
    with pytest.raises(FileNotFoundError, match="no manifest"):
        read_manifest(tmp_path / "sub")
