"""A program of test_shards: what each of 8 ranks holds of a sharded 7B policy, as JSON on standard output.

The process group is torch's fake one and the weights are on the meta device: shards are cut as on 8 devices, and nothing is
computed or sent.
"""

import json
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig, AutoModelForCausalLM

from sfpo.plan.shapes import PUBLISHED
from sfpo.ranks import Ranks
from sfpo.trainer.attention import ATTENTION
from sfpo.trainer.scorer import Head, Scorer

RANKS = 8


class OnMeta(Scorer):
    """Without the passes by which a scorer finds the output layer: nothing computes on the meta device."""

    def _find_head(self) -> Head:
        return Head(self.model.base_model_prefix, lambda hidden: hidden, self.model.config.vocab_size, is_product=True)


def main() -> None:
    held = []
    for rank in range(RANKS):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=RANKS)
        ranks = Ranks(rank, RANKS, init_device_mesh("cpu", (RANKS,)))
        config = dict(PUBLISHED[sys.argv[1]])
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(config.pop("model_type"), **config), dtype=torch.float32, attn_implementation=ATTENTION
            )
        OnMeta(model, torch.bfloat16, 1.0).shard(ranks, offload=False)
        held.append(sum(weight.to_local().numel() * weight.element_size() for weight in model.parameters()))
        dist.destroy_process_group()
    print(json.dumps(held))


if __name__ == "__main__":
    main()
