"""A tiny random model of every causal language model that transformers knows, with its features on.

Sizes are set by the names that configurations have for them; what a family needs beside is in SPECIAL. Windows are shorter
than the sequences of the tests, and every weight is moved away from where it starts, so that biases, sinks, norms and caps
make themselves felt.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 97
WINDOW = 6
LAYERS = 4

SIZES: dict[str, Any] = {
    **dict.fromkeys(["vocab_size", "text_vocab_size", "n_positions_vocab"], VOCABULARY),
    **dict.fromkeys(
        ["hidden_size", "n_embd", "d_model", "dim", "embedding_size", "emb_dim", "dim_model", "word_embed_proj_dim"], 32
    ),
    **dict.fromkeys(
        [
            "intermediate_size",
            "ffn_dim",
            "decoder_ffn_dim",
            "encoder_ffn_dim",
            "ffn_hidden_size",
            "d_inner",
            "n_inner",
            "dim_ff",
            "shared_intermediate_size",
            "intermediate_size_mlp",
            "d_ff",
            "dff",
        ],
        48,
    ),
    **dict.fromkeys(
        [
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "expert_ffn_hidden_size",
            "moe_shared_expert_intermediate_size",
        ],
        16,
    ),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "num_layers", "decoder_layers", "encoder_layers", "n_layers"], LAYERS),
    **dict.fromkeys(
        [
            "num_attention_heads",
            "n_head",
            "n_heads",
            "decoder_attention_heads",
            "encoder_attention_heads",
            "num_heads",
            "num_decoder_attention_heads",
        ],
        4,
    ),
    **dict.fromkeys(["num_key_value_heads", "multi_query_group_num"], 2),
    **dict.fromkeys(["head_dim", "kv_channels", "qk_nope_head_dim", "v_head_dim", "attention_head_dim"], 8),
    "qk_rope_head_dim": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"], 4),
    **dict.fromkeys(["num_experts_per_tok", "moe_topk", "moe_k", "num_selected_experts"], 2),
    **dict.fromkeys(
        ["sliding_window", "attention_window_size", "attention_chunk_size", "window_size", "local_attention"], WINDOW
    ),
    **dict.fromkeys(
        [
            "max_position_embeddings",
            "n_positions",
            "max_seq_len",
            "n_ctx",
            "context_length",
            "max_target_positions",
            "max_source_positions",
        ],
        128,
    ),
    "pad_token_id": 0,
    **dict.fromkeys(["bos_token_id", "eos_token_id", "decoder_start_token_id"], 1),
    "initializer_range": 0.2,
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"], 8),
    **dict.fromkeys(["linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"], 4),
}

MLA = {"head_dim": 4, "num_key_value_heads": 4, "n_group": 1, "topk_group": 1}
"""Multi-head latent attention: what rotates has the rotary head size, and every head its own keys."""
MAMBA = {"mamba_n_heads": 4, "mamba_d_state": 8, "mamba_chunk_size": 8}
MAMBA_AND_ATTENTION = ["mamba", "attention", "mamba", "attention"]

SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(["axk1", "deepseek_v2", "deepseek_v3", "longcat_flash", "youtu"], MLA),
    **dict.fromkeys(["axk2", "glm4_moe_lite", "kimi_linear", "minicpm3"], MLA),
    **dict.fromkeys(["deepseek_v32", "glm_moe_dsa"], {**MLA, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 64}),
    "bamba": {**MAMBA, "attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {**MAMBA, "layer_types": MAMBA_AND_ATTENTION, "num_key_value_heads": 2, "logits_scaling": 3.0},
    "granite": {"logits_scaling": 3.0},
    "granitemoe": {"logits_scaling": 3.0},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "use_mamba_kernels": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 8, "chunk_size": 8},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 8},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local"] * 4, "num_hidden_layers": 4},
    "xlstm": {"num_heads": 2, "chunk_size": 8, "mode": "train_with_padding", "return_last_states": False},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 4, "mamba_d_state": 8, "chunk_size": 8},
    "zamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
        "attention_hidden_size": 64,
        "tie_word_embeddings": False,
    },
    "zaya": {"num_experts_per_tok": 1},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": 48,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 97,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    },
    "gemma4_text": {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 97, "global_head_dim": 8},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "qwen4_exp_text": {
        "ple_embed_dim": 32,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 2,
    },
}


def families() -> dict[str, str]:
    """Family -> class of its causal language model."""
    return {
        name: classes if isinstance(classes, str) else classes[0] for name, classes in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
    }


def tiny_config(family: str, **changes: Any) -> PreTrainedConfig:
    """The family's configuration, shrunk; those of its parts too."""
    special = {**SPECIAL.get(family, {}), **changes}
    return _shrunk(CONFIG_MAPPING[family], special)


def _shrunk(kind: type[PreTrainedConfig], special: dict[str, Any]) -> PreTrainedConfig:
    default = kind()
    known = default.to_dict()
    given = {key: SIZES[key] for key in SIZES if known.get(key) is not None}
    aliases = {name: attribute for name, attribute in kind.attribute_map.items() if name in SIZES and attribute not in SIZES}
    given |= {attribute: SIZES[name] for name, attribute in aliases.items()}
    given |= {key: SIZES[key] for key in ("head_dim", "num_key_value_heads", "pad_token_id") if key in known}
    given |= {"is_decoder": True} if known.get("is_decoder") is False and not kind.sub_configs else {}
    for name, part in kind.sub_configs.items():
        sub = getattr(default, name, None)
        if sub is not None:
            given[name] = _shrunk(type(sub), special.get(name, {})).to_dict()
    if isinstance(known.get("layer_types"), list):
        met = list(dict.fromkeys(known["layer_types"]))
        given["layer_types"] = [met[place % len(met)] for place in range(LAYERS)]
    for key in ("mlp_layer_types",):
        if isinstance(known.get(key), list):
            met = list(dict.fromkeys(known[key]))
            given[key] = [met[place % len(met)] for place in range(LAYERS)]
    given |= {key: value for key, value in special.items() if key not in kind.sub_configs}
    return kind(**given)


def tiny_model(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of the family, in float32."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **changes), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()
