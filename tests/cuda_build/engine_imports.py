"""A program of test_cuda_build: imports that an engine's start reaches on a GPU, each by itself, as JSON on standard output."""

import importlib
import json

import tests.cuda_build.faked_devices  # noqa: F401  first: vLLM asks for the platform when it is imported

MODULES = (
    "flashinfer",
    "vllm.v1.attention.backends.flashinfer",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.v1.worker.gpu.sample.sampler",
    "vllm.v1.worker.gpu.warmup",
    "vllm.v1.sample.ops.topk_topp_sampler",
    "vllm.v1.executor.uniproc_executor",
    "vllm.device_allocator.cumem",
    "vllm.distributed.device_communicators.cuda_communicator",
    "vllm.model_executor.warmup.kernel_warmup",
    "vllm.model_executor.models.qwen2",
    "vllm.model_executor.models.qwen3",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.model_loader.reload",
    "torch.nn.attention.varlen",
    "triton",
    "cuda.bindings.driver",
    "cuda.bindings.runtime",
    "sfpo.rollouts.vllm_engine",
    "sfpo.trainer.loop",
)


def failure(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except BaseException as error:  # pytest.skip-like exits of a library count too
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    from vllm.v1.sample.ops.topk_topp_sampler import flashinfer_sampler_supported

    from sfpo.rollouts.vllm_engine import llm_arguments  # noqa: F401  sets vLLM's variables, as a job does

    failures = {module: told for module in MODULES if (told := failure(module))}
    print(json.dumps({"failures": failures, "flashinfer_sampler": flashinfer_sampler_supported()}))


if __name__ == "__main__":
    main()
