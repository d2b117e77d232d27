"""A program of test_loading, under torchrun: what each rank holds of a model that the first one has read.

``loaded_on_ranks.py <out> <large checkpoint> <checkpoint> ...``: of the large one, each rank writes to <out>/<rank>.json how
many bytes it held; of the others, all tensors and log-probs are compared with those of the whole model.
"""

import json
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sfpo.ranks import Ranks, init_distributed
from sfpo.trainer.loading import from_first, load_model, weights_and_buffers
from sfpo.trainer.packing import micro_batches
from sfpo.trainer.scorer import Scorer

CPU = torch.device("cpu")
PROMPTS, COMPLETIONS = [[5, 6, 7], [5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14], [15, 16, 17, 18]]


def peak() -> int:
    """Bytes: the most that this process has held since the last ``forget_peak``."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def forget_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def sharded(checkpoint: str, ranks: Ranks) -> Scorer:
    model = load_model(checkpoint, ranks)
    assert {tensor.is_meta for tensor in weights_and_buffers(model)} == {not ranks.first}
    scorer = Scorer(model, torch.float32, 1.0, ranks)
    scorer.shard(ranks, offload=False, prepare=from_first(ranks, CPU))
    return scorer


def logprobs(scorer: Scorer) -> torch.Tensor:
    layout = {"layout": "sequences", "alone_from": scorer.alone_from}
    with torch.no_grad():
        return torch.cat([scorer(micro, False)[0] for micro in micro_batches(PROMPTS, COMPLETIONS, 99, CPU, **layout)])


def require_same(model: PreTrainedModel, whole: PreTrainedModel) -> None:
    mine, theirs = list(weights_and_buffers(model)), list(weights_and_buffers(whole))
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        assert (one.shape, one.dtype, one.requires_grad) == (other.shape, other.dtype, other.requires_grad)
        assert torch.equal(one.full_tensor() if isinstance(one, DTensor) else one, other)
    first_places = [
        [min(place for place, one in enumerate(found) if one is tensor) for tensor in found] for found in (mine, theirs)
    ]
    assert first_places[0] == first_places[1]  # the same ones are tied


if __name__ == "__main__":
    out, large, *others = sys.argv[1:]
    ranks = init_distributed()
    before = forget_peak()
    scorer = sharded(large, ranks)
    held = sum(parameter.to_local().nbytes for parameter in scorer.model.parameters())
    Path(out, f"{ranks.rank}.json").write_text(json.dumps({"held": held, "peak": peak() - before}))
    for checkpoint in others:
        whole = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        scorer = sharded(checkpoint, ranks)
        require_same(scorer.model, whole)
        torch.testing.assert_close(logprobs(scorer), logprobs(Scorer(whole, torch.float32, 1.0)), rtol=0, atol=1e-5)
