"""verl on a CPU, for tests. verl has no CPU platform: this one is registered as a plugin of it (VERL_PLATFORM=cpu), with
the memory statistics that verl asks a device for and torch.cpu lacks."""

import os
import types
from contextlib import contextmanager

os.environ.update(VERL_PLATFORM="cpu", VERL_ENGINE_DEVICE="cuda")  # no engine is registered for "cpu"; it is told apart by name

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

DEVICE = types.SimpleNamespace(**{name: getattr(torch.cpu, name) for name in dir(torch.cpu) if not name.startswith("_")})
for _name in ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved", "reset_peak_memory_stats"):
    setattr(DEVICE, _name, lambda *_: 0)
DEVICE.get_device_name = lambda *_: "CPU"
DEVICE.empty_cache = lambda: None
DEVICE.mem_get_info = lambda *_: (0, 0)
DEVICE.get_rng_state = torch.get_rng_state
DEVICE.set_rng_state = torch.set_rng_state


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    device_name = "cpu"
    vendor_name = "cpu"
    device_module = DEVICE

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def _nothing(self, *_):
        return None

    set_device = synchronize = manual_seed = manual_seed_all = _nothing
    set_allocator_settings = empty_cache = profiler_start = profiler_stop = cudart = _nothing

    def get_device_capability(self, *_):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CPU_VISIBLE_DEVICES"

    def ray_resource_name(self):
        return "CPU"

    def ray_resource_options(self, count):
        return {"num_cpus": count}

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    @contextmanager
    def nvtx_range(self, _):
        yield
