"""Pretends that there are H100s, for vLLM's configuration code alone: nothing is computed on them.

Imported before vLLM. The number is that of $FAKED_GPUS.
"""

import os
from types import SimpleNamespace

import torch
import vllm.third_party.pynvml as nvml

COUNT = int(os.environ["FAKED_GPUS"])
NAME = "NVIDIA H100 80GB HBM3"
PROPERTIES = SimpleNamespace(
    name=NAME,
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=int(79.1 * 2**30),
    is_integrated=False,
    warp_size=32,
    gcnArchName="",
    shared_memory_per_block_optin=232448,
    L2_cache_size=50 * 2**20,
    max_threads_per_multi_processor=2048,
    regs_per_multiprocessor=65536,
)

nvml.nvmlInit = nvml.nvmlShutdown = lambda *_, **__: None
nvml.nvmlDeviceGetCount = lambda: COUNT
nvml.nvmlDeviceGetHandleByIndex = lambda index: index
nvml.nvmlDeviceGetCudaComputeCapability = lambda handle: (9, 0)
nvml.nvmlDeviceGetName = lambda handle: NAME
nvml.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}"
nvml.nvmlDeviceGetMemoryInfo = lambda handle, *_: SimpleNamespace(total=81559 * 2**20, free=81000 * 2**20, used=0)

torch.cuda.is_available = torch.accelerator.is_available = lambda: True
torch.cuda.is_bf16_supported = lambda *_, **__: True
torch.cuda.device_count = torch.cuda._device_count_nvml = torch.accelerator.device_count = lambda: COUNT
torch.cuda.current_device = torch.accelerator.current_device_index = lambda: 0
torch.cuda.get_device_properties = lambda *_, **__: PROPERTIES
torch.cuda.get_device_capability = lambda *_, **__: (9, 0)
torch.cuda.get_device_name = lambda *_, **__: NAME
