"""What several rooms' tests share: a small random policy in Hugging Face format, and an engine on it."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads that wait for each other on a busy machine take many times longer
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import pytest

from sfpo.config import ModelLimits, load_params

PROJECT = Path(__file__).parent.parent

# How long an example takes depends on what else the machine does; how many there are does not.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def params():
    return load_params(PROJECT / "params.yaml")


@pytest.fixture(scope="session")
def tiny_model(params):
    """Settings of the embedded model."""
    return params.models["tiny-qwen2"]


@pytest.fixture(scope="session")
def limits(tiny_model) -> ModelLimits:
    return ModelLimits(max_prompt_tokens=tiny_model.max_prompt_tokens, max_completion_tokens=tiny_model.max_completion_tokens)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tiny_model) -> Path:
    """The embedded model with random weights: tokenizer, chat template, safetensors."""
    from sfpo.data.arithmetic import generate
    from sfpo.manifest import write_manifest
    from sfpo.models.scratch import new_policy, train_tokenizer

    folder = tmp_path_factory.mktemp("checkpoint")
    rows = generate("stories", "train", 200)
    tokenizer = train_tokenizer([text for row in rows for text in (row.problem, row.solution)], tiny_model.vocabulary_size)
    new_policy(tiny_model, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_manifest(folder)
    return folder


@pytest.fixture(scope="session")
def family_checkpoint(checkpoint, tmp_path_factory):
    """Makes a tiny random model of a family of transformers, with the embedded model's tokenizer. Weights, and buffers that a
    checkpoint stores, are larger than published ones', so that all that is in the model shows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    def make(family: str, **settings) -> Path:
        folder = tmp_path_factory.mktemp(family)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        sizes = {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "head_dim": 16,
            "vocab_size": len(tokenizer),
        }
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **heads, **special, **settings}))
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.add_(0.1 * torch.randn(tensor.shape))
        model.generation_config = GenerationConfig(**special)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def vllm_engine(checkpoint, limits, params):
    """One live vLLM engine for all tests that need one: starting it takes seconds."""
    from sfpo.rollouts import make_engine

    return make_engine(checkpoint, limits, params.suites["tiny"].sampler, params.suites["tiny"].execution.engine)


@pytest.fixture
def engine(vllm_engine):
    return vllm_engine


@pytest.fixture(scope="session")
def isolation() -> None:
    """Skips if the kernel cannot isolate programs (for example in a container without user namespaces)."""
    from sfpo.rewards.code_tests import CodeGrader

    with CodeGrader(workers=1) as grader:
        try:
            grader.check_isolation()
        except RuntimeError as error:
            pytest.skip(str(error))
