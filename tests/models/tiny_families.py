"""A tiny random model of every causal language model that transformers knows, with its features on.

Sizes are set by the names that configurations have for them; what a family needs beside is in SPECIAL. Windows and chunks are
shorter than the sequences of the tests, and every weight is moved away from where it starts, so that biases, sinks, norms and
caps make themselves felt.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY = 97
LAYERS = 4

NAMES = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input",
    32: "hidden_size n_embd d_model dim embedding_size emb_dim dim_model word_embed_proj_dim",
    48: """intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size d_inner n_inner dim_ff d_ff
        shared_intermediate_size intermediate_size_mlp""",
    16: """moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size
        q_lora_rank kv_lora_rank""",
    LAYERS: "num_hidden_layers n_layer num_layers decoder_layers encoder_layers n_layers num_experts num_local_experts "
    "n_routed_experts moe_num_experts num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads "
    "num_heads num_decoder_attention_heads linear_num_key_heads linear_num_value_heads linear_num_heads qk_rope_head_dim",
    2: "num_key_value_heads num_experts_per_tok moe_topk moe_k num_selected_experts",
    8: """head_dim kv_channels qk_nope_head_dim v_head_dim attention_head_dim linear_key_head_dim linear_value_head_dim
        linear_head_dim hidden_size_per_layer_input global_head_dim""",
    6: "sliding_window attention_window_size attention_chunk_size window_size local_attention",
    128: "max_position_embeddings n_positions max_seq_len n_ctx context_length max_target_positions max_source_positions",
    0: "pad_token_id",
    1: "bos_token_id eos_token_id decoder_start_token_id",
    0.2: "initializer_range",
}
SIZES: dict[str, float] = {name: size for size, names in NAMES.items() for name in names.split()}
NO_DEFAULT = ("gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody")
"""model_type whose configuration is nothing without its parts."""
ALSO_IF_UNSET = ("head_dim", "num_key_value_heads", "num_experts_per_tok", "n_routed_experts", "pad_token_id")

MLA = {"head_dim": 4, "num_key_value_heads": 4, "n_group": 1, "topk_group": 1}
"""Multi-head latent attention: what rotates has the rotary head size, and every head has its own keys."""
INDEXED = {**MLA, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 64}
MAMBA = {"mamba_n_heads": 4, "mamba_d_state": 8, "mamba_chunk_size": 8}
SCALED = {"logits_scaling": 3.0}
PART_ROTATES = {"rotary_dim": 4}
WINDOWS = ["sliding_attention", "full_attention"] * 2
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
BYTES = {**SMALL, "num_key_value_heads": 4, "vocab_size": VOCABULARY}
DRAFTED = {"model_type": "gemma4_text", **SMALL, "vocab_size": VOCABULARY, "pad_token_id": 0}
DRAFTED |= {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
SPOKEN = {
    "text_encoder": {"model_type": "t5", "d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2},
    "audio_encoder": {"model_type": "encodec"},
    "decoder": {**SMALL, "ffn_dim": 48, "vocab_size": VOCABULARY, "num_codebooks": 4},
}

SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(["axk1", "axk2", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_linear"], MLA),
    **dict.fromkeys(["longcat_flash", "minicpm3", "youtu"], MLA),
    **dict.fromkeys(["deepseek_v32", "glm_moe_dsa"], INDEXED),
    **dict.fromkeys(["granite", "granitemoe", "granitemoeshared", "granite_swa", "granitemoe_swa"], SCALED),
    **dict.fromkeys(["codegen", "gptj"], PART_ROTATES),
    **{family: {"text_config": DRAFTED} for family in ("gemma4_assistant", "gemma4_unified_assistant")},
    **dict.fromkeys(["musicgen", "musicgen_melody"], SPOKEN),
    "blt": {
        "patcher_config": BYTES,
        "encoder_config": {**BYTES, "num_hidden_layers": 1, "hidden_size_global": 32},
        "decoder_config": {**BYTES, "hidden_size_global": 32},
        "global_config": {name: size for name, size in BYTES.items() if name != "vocab_size"},
        "encoder_hash_byte_group_vocab": 64,
    },
    "bamba": {**MAMBA, "attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "layer_types": WINDOWS,
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": ROPE},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": WINDOWS,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {**MAMBA, "layer_types": ["mamba", "attention"] * 2, "logits_scaling": 3.0},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "use_mamba_kernels": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 8, "chunk_size": 8},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 8},
    "qwen4_exp_text": {
        "ple_embed_dim": 32,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 2,
    },
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local"] * 4},
    "xlm": {"causal": True},
    "xlstm": {"num_heads": 2, "qk_dim_factor": 1.0, "chunk_size": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "tie_word_embeddings": False}
    | {"attention_hidden_size": 64},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 4, "mamba_d_state": 8, "chunk_size": 8},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_model(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of the family, in float32.

    Args:
        changes: settings of its configuration.
    """
    torch.manual_seed(seed)
    config = tiny_config(CONFIG_MAPPING[family], SPECIAL.get(family, {}) | changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.published_config = config  # where a model takes a part of it, its makers publish the whole
    return model.eval()


def tiny_config(kind: type[PreTrainedConfig], special: dict[str, Any]) -> PreTrainedConfig:
    """A configuration of that kind, shrunk, and its parts too."""
    if kind.model_type in NO_DEFAULT:
        return kind(**deepcopy(special))
    default = kind()
    known = default.to_dict()
    given = {
        name: size for name, size in SIZES.items() if known.get(name) is not None or (name in known and name in ALSO_IF_UNSET)
    }
    given |= {
        attribute: SIZES[name] for name, attribute in kind.attribute_map.items() if name in SIZES and attribute not in SIZES
    }
    if known.get("is_decoder") is False and not kind.sub_configs:
        given["is_decoder"] = True
    for name in kind.sub_configs:
        part = getattr(default, name, None)
        if part is not None and name not in special:
            given[name] = tiny_config(type(part), SPECIAL.get(part.model_type, {})).to_dict()
    for name in ("layer_types", "mlp_layer_types"):
        if isinstance(known.get(name), list):
            met = list(dict.fromkeys(known[name]))
            given[name] = [met[place % len(met)] for place in range(LAYERS)]
    return kind(**given | special)
