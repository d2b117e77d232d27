"""Tests every family of causal language models with vLLM: ``python -m benchmarks.families [family ...]``.

For each family a tiny random model is built. After a weight sync with perturbed weights, the log-probs of vLLM's samples are
compared with those of the plain model in transformers; then the same for an export, in transformers and in a new engine. All in
float32. Each family runs in its own process with a time limit; results are merged into benchmarks/results/families.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

RESULTS = Path("benchmarks/results/families.json")
VOCABULARY = 384
LIMIT = 240
"""Time limit for one family, in seconds."""
FAR = 1e-4
"""Allowed difference of float32 log-probs, in nats."""
SIZES = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "dim", "model_dim", "attention_hidden_size"], 128),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "decoder_ffn_dim", "block_ff_dim"], 192),
    **dict.fromkeys(["intermediate_size_mlp", "shared_intermediate_size", "dense_intermediate_size"], 192),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"], 64),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"], 4),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"], 4),
    **dict.fromkeys(["num_key_value_heads", "num_kv_heads"], 2),
    **dict.fromkeys(["head_dim", "global_head_dim", "attention_head_dim"], 32),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"], 4),
    **dict.fromkeys(["num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token"], 2),
    **dict.fromkeys(["n_shared_experts", "num_shared_experts", "moe_num_shared_experts"], 1),
    **dict.fromkeys(["n_group", "topk_group", "expert_layer_period", "num_nextn_predict_layers"], 1),
    **dict.fromkeys(["first_k_dense_replace", "moe_layer_start_index", "num_dense_layers"], 1),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"], 256),
    **dict.fromkeys(["sliding_window", "sliding_window_size", "window_size"], 8),
    **dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], None),
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 32,
    "v_head_dim": 32,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": VOCABULARY,
    "layer_types": None,
    "mlp_layer_types": None,
    "ffn_hidden_sizes": None,
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_d_ssm": 256,
    "mamba_d_state": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 32,
    "ssm_state_size": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}
"""Configuration key -> its value in a tiny model, for families that have the key and whose default is not None."""
MLA = {"head_dim": 64, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
"""The published sizes of multi-head latent attention, the only ones that vLLM's kernel supports."""
OF_FAMILY: dict[str, dict[str, Any]] = {
    "gemma2": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 32},
    "qwen2": {"use_sliding_window": False},
    "falcon": {"new_decoder_architecture": True, "ffn_hidden_size": 512},
    "gptj": {"rotary_dim": 16},
    "codegen": {"rotary_dim": 16},
    "mamba2": {"num_heads": 4, "head_dim": 64},
    "jamba": {"expert_layer_offset": 0, "attn_layer_period": 2, "attn_layer_offset": 1},
    "cwm": {"bos_token_id": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "llama4_text": {"num_experts_per_tok": 1},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2},
    "lfm2": {"block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "olmo3": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "bamba": {"attn_layer_indices": [1, 3], "mamba_expand": 2},
    "apertus": {"hidden_act": "xielu"},
    # Keys of the published config.json that vLLM reads but transformers does not:
    "minimax_m2": {"rotary_dim": 32, "scoring_func": "sigmoid", "use_routing_bias": True},
    "glm4_moe": {"head_dim": 32},
    "deepseek_v3": {"num_key_value_heads": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid", **MLA},
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, **MLA},
    "glm4_moe_lite": {"num_key_value_heads": 4, "first_k_dense_replace": 1, **MLA},
    "hy_v3": {"first_k_dense_replace": 1},
    "youtu": {"num_key_value_heads": 4, **MLA},
}


def tiny_config(family: str) -> Any:
    """The family's configuration with small sizes, but still with a layer of each kind."""
    from transformers import CONFIG_MAPPING

    def shrunk(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        small = {key: SIZES[key] for key, value in values.items() if key in SIZES and value is not None}
        return {**{key: value for key, value in small.items() if value is not None or key.endswith("_token_id")}, **more}

    kind = CONFIG_MAPPING[family]
    default, more = kind(), OF_FAMILY.get(family, {})
    text = default.get_text_config()
    if text is default:
        return kind(**shrunk(default.to_dict(), more))
    name = next(key for key in default.sub_configs if getattr(default, key, None) is text)
    of_text: dict[str, Any] = {name: type(text)(**shrunk(text.to_dict(), more)).to_dict()}
    return kind(**of_text)


def build(family: str, folder: Path) -> None:
    """Write a tiny random model to ``folder``, with larger weights than usual so that every part affects the log-probs."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from sfpo.models.scratch import train_tokenizer

    tokenizer = train_tokenizer(["What is 12 + 30? It is 42."], 300)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family), dtype=torch.float32)
    move(model, 0.1, seed=1)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def move(model: Any, by: float, seed: int) -> None:
    """Add noise to every parameter and every buffer that a checkpoint stores."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    stored = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    with torch.no_grad():
        for tensor in stored.values():
            if tensor.is_floating_point():
                tensor.add_(by * torch.randn(tensor.shape, generator=generator))


def logprobs_of(model: Any, requests: list[Any], completions: list[Any]) -> Any:
    """Log-probs of the completions' tokens, [N], computed per sequence."""
    import torch

    found = []
    for request, completion in zip(requests, completions, strict=True):
        ids = torch.tensor([request.prompt_ids + completion.token_ids])
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0, len(request.prompt_ids) - 1 : -1].float()
        found.append(logits.log_softmax(-1).gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0])
    return torch.cat(found)


def gap(engine: Any, model: Any) -> float:
    """The largest difference of log-probs between ``engine`` and the plain ``model`` on sampled tokens, in nats."""
    import torch

    from sfpo.config import Sampling
    from sfpo.rollouts.engine import Request

    generator = torch.Generator().manual_seed(2)
    prompts = [torch.randint(3, VOCABULARY - 100, (size,), generator=generator).tolist() for size in (3, 11, 20)]
    requests = [Request(prompt, seed) for prompt in prompts for seed in range(2)]
    completions = engine.generate(requests, Sampling())
    sampled = torch.tensor([value for completion in completions for value in completion.logprobs])
    return (logprobs_of(model, requests, completions) - sampled).abs().max().item()


@contextmanager
def record_error(result: dict[str, Any], key: str) -> Iterator[None]:
    """Store the first line of an exception as the result of this step."""
    try:
        yield
    except Exception as fault:  # libraries can raise anything for models that they do not support
        traceback.print_exc()
        causes: list[BaseException] = [fault]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause)
        text = str(causes[-1]).strip().splitlines() or [traceback.extract_tb(causes[-1].__traceback__)[-1].line or ""]
        # pydantic's first line counts the errors, its second line names the field or what is wrong.
        told = " ".join(line.strip() for line in text[: 3 if "validation error" in text[0] else 1])
        result[key] = f"{type(causes[-1]).__name__}: {told[:300]}"


def one(family: str, library: str) -> dict[str, Any]:
    """Results of one family: engine ('started', or an error); engine_gap and export_gap in nats, or an error."""
    import torch
    from transformers import AutoModelForCausalLM

    from sfpo.config import Engine, ModelLimits, Sampler
    from sfpo.ranks import SINGLE_PROCESS
    from sfpo.rollouts import make_engine
    from sfpo.trainer.checkpoint import export_checkpoint
    from sfpo.trainer.lora import merged
    from sfpo.trainer.published_names import published, stored_once

    result: dict[str, Any] = {"engine": None, "engine_gap": None, "export_gap": None}
    limits = ModelLimits(max_prompt_tokens=32, max_completion_tokens=16)
    arguments = (
        limits,
        Sampler(library=library, dtype="float32"),
        Engine(max_sequences=8, kv_cache_gib=0.25, enforce_eager=True),
    )

    def plain(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    with tempfile.TemporaryDirectory() as temporary:
        folder, export = Path(temporary, "model"), Path(temporary, "export")
        with record_error(result, "engine"):
            build(family, folder)
            model = plain(folder)
            policy: Any = SimpleNamespace(model=model, ranks=SINGLE_PROCESS)
            policy.weights = lambda: published(
                model, merged(model, stored_once(model, model.state_dict(keep_vars=True)), lambda tensor: tensor.detach())
            )
            result["engine"] = "did not start"
            engine = make_engine(folder, *arguments)
            result["engine"] = "started"
            with record_error(result, "engine_gap"):
                result["start_gap"] = gap(engine, model)
                move(model, 0.05, seed=3)
                result["moved_by"] = gap(engine, model)
                engine.load_weights(policy.weights())
                result["engine_gap"] = gap(engine, model)
            with record_error(result, "export_gap"):
                export_checkpoint(policy, folder, export)
                tokens = torch.arange(3, 40)[None]
                with torch.no_grad():
                    apart = (plain(export)(tokens).logits.log_softmax(-1) - model(tokens).logits.log_softmax(-1)).abs().max()
                engine.load_checkpoint(folder)
                engine.load_checkpoint(export)
                loaded = gap(engine, model)
                del engine
                fresh = gap(make_engine(export, *arguments), model)
                result["export_gap"] = max(apart.item(), loaded, fresh)
    return result


def main(argv: list[str] | None = None) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="default: all families of transformers")
    parser.add_argument("--library", choices=["vllm", "transformers"], default="vllm")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--here", action="store_true", help="run one family in this process, and print the result to standard output"
    )
    arguments = parser.parse_args(argv)
    if arguments.here:
        print("RESULT " + json.dumps(one(arguments.families[0], arguments.library)), flush=True)
        os._exit(0)  # do not wait for the engine to shut down
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for family in arguments.families or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        command = [sys.executable, "-m", "benchmarks.families", family, "--here", "--library", arguments.library]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            last = (done.stderr.strip().splitlines() or [""])[-1]
            result = json.loads(lines[0].removeprefix("RESULT ")) if lines else {"engine": f"exit {done.returncode}: {last}"}
        except subprocess.TimeoutExpired:
            result = {"engine": f"not finished after {LIMIT} s"}
        logging.info("%s %s", family, result)
        found = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
        found[family] = {**found.get(family, {}), **result}
        arguments.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
