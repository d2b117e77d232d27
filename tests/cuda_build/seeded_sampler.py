"""A program of test_cuda_build: the sampler kernel of vLLM's GPU runner by Triton's interpreter, as JSON on standard output.

$TRITON_INTERPRET is 1, and $CUDA_VISIBLE_DEVICES empty, so that vLLM takes Triton without a device. 512 requests with seeds
of their own draw from one distribution.
"""

import json

import torch
from vllm.v1.worker.gpu.sample.gumbel import gumbel_sample

from sfpo.seeding import seed_of

CHANCES = torch.tensor([0.5, 0.25, 0.125, 0.125])
REQUESTS = 512


def drawn(seeds: torch.Tensor, position: int) -> list[int]:
    """One token for each seed."""
    count = len(seeds)
    places = torch.arange(count, dtype=torch.int32)
    logits = CHANCES.log().repeat(count, 1).contiguous()
    positions = torch.full((count,), position, dtype=torch.int64)
    temperature = torch.ones(count)
    return gumbel_sample(
        logits, places, temperature, seeds, positions, apply_temperature=False, is_drafting=False, use_fp64=False
    ).tolist()


def main() -> None:
    seeds = torch.tensor([seed_of("sampler", request) for request in range(REQUESTS)])
    together = drawn(seeds, 7)
    print(
        json.dumps(
            {
                "together": together,
                "again": drawn(seeds, 7),
                "reversed": drawn(seeds.flip(0), 7)[::-1],
                "alone": [drawn(seeds[place : place + 1], 7)[0] for place in range(16)],
                "next_position": drawn(seeds, 8),
            }
        )
    )


if __name__ == "__main__":
    main()
