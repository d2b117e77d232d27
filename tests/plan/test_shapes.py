"""Shapes against counts by hand, the models of transformers, and published numbers of weights."""

import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sfpo.config import HubModel, LocalModel, PackageModel
from sfpo.plan.activations import Attention
from sfpo.plan.shapes import PUBLISHED, shape_of, shape_of_checkpoint, shape_of_model
from sfpo.schema import ConfigError
from tests.models.tiny_families import tiny_model

SIZES = {
    "hidden_size": 8,
    "intermediate_size": 10,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 20,
}
FAMILIES = ["gemma2", "gemma3_text", "granite", "olmo2", "phi3", "mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3"]
FAMILIES += ["gpt2", "bloom", "falcon", "cohere", "bamba", "qwen3_next"]
LIMITS = {"max_prompt_tokens": 8, "max_completion_tokens": 8}


def test_parameters_by_hand():
    # Heads of 2: queries 8 wide, keys and values 4. A layer: 8 x (8 + 4 + 4 + 8) = 192, 3 x 8 x 10 = 240, biases of queries,
    # keys, values 8 + 4 + 4 = 16: 448 in matrix products; two norms of 8: 464. Outside: 20 x 8 = 160, twice, and a norm of 8.
    shape = shape_of({**SIZES, "model_type": "qwen2", "tie_word_embeddings": False}, "here")
    assert [(layer.parameters, layer.linear_parameters) for layer in shape.layers] == [(464, 448)] * 3
    assert (shape.root.parameters, shape.embedding_parameters, shape.head_parameters, shape.vocab_size) == (328, 160, 160, 20)
    assert shape.parameters == shape.active_parameters == 3 * 464 + 328 and not shape.tied
    sizes = {matrix.name: (matrix.inputs, matrix.outputs) for matrix in shape.layers[0].matrices}
    assert sizes["k_proj"] == (8, 4) and sizes["down_proj"] == (10, 8) and len(sizes) == 7
    (asked,) = shape.trace("float32", adapters=False).layers[0].attention
    assert asked == Attention(4, 2, 2, 2, window=None, softcap=False, sinks=False)


def test_experts_windows_caps_and_heads_by_hand():
    # 4 experts of 3 x 8 x 10 = 240, of which a token meets 2; a router of 8 x 4; attention 192; two norms of 8.
    mixture = shape_of({**SIZES, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}, "here")
    assert mixture.layers[0].parameters == 4 * 240 + 32 + 192 + 16 and mixture.layers[0].expert_parameters == 960
    assert mixture.parameters - mixture.active_parameters == 3 * 2 * 240
    # peft's A and B of the experts' up and gate [20, 8] and down [8, 10], of rank 1: 4 x (28 + 18).
    assert mixture.layers[0].adapter_parameters(1, ["gate_up_proj", "down_proj"]) == 4 * 46
    capped = shape_of({**SIZES, "model_type": "gemma2", "head_dim": 6, "sliding_window": 5}, "here")
    trace = capped.trace("float32", adapters=False)
    assert [layer.attention[0].window for layer in trace.layers] == [5, None, 5] and trace.layers[0].attention[0].softcap
    assert trace.layers[0].attention[0].key_dim == 6 and not trace.is_product and capped.tied


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "qwen2"},
        {"model_type": "qwen2", "tie_word_embeddings": True, "num_key_value_heads": 4},
        {"model_type": "qwen3", "head_dim": 6},
        {"model_type": "qwen3", "head_dim": 6, "attention_bias": True},
        {"model_type": "llama", "tie_word_embeddings": True},
        {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    ],
)
def test_parameters_are_those_of_transformers(changes, tmp_path):
    config = AutoConfig.for_model(**{**SIZES, **changes})
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape_of_checkpoint(tmp_path).parameters == model.num_parameters()


def test_published_shapes_have_the_published_numbers_of_weights():
    # As public evaluation and pruning code quotes them for these checkpoints, or (7B, 4B) for others of the same architecture.
    assert {name: shape_of(config, name).parameters for name, config in PUBLISHED.items()} == {
        "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
        "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
        "Qwen/Qwen3-4B-Base": 4_022_468_096,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_a_built_model(family):
    model = tiny_model(family, max_position_embeddings=256)
    shape = shape_of(model.config.to_dict(), family)
    assert shape.parameters == model.num_parameters() and shape.kind == type(model).__name__
    weight = model.get_output_embeddings().weight
    assert shape.tied == (weight is model.get_input_embeddings().weight) and shape.vocab_size == len(weight)


def test_every_source_of_a_model_tells_its_shape_or_says_what_to_do(params, checkpoint, tiny_model):
    prepared, of_params = shape_of_checkpoint(checkpoint), shape_of_model(tiny_model)
    assert of_params.vocab_size == tiny_model.vocabulary_size >= prepared.vocab_size
    assert of_params.layers == prepared.layers
    assert shape_of_model(LocalModel(source="local", path=str(checkpoint), **LIMITS)) == prepared
    with pytest.raises(ConfigError, match=r"id = 'some/model': .*give its config\.json"):
        shape_of_model(HubModel(source="hub", id="some/model", **LIMITS))
    with pytest.raises(ConfigError, match=r"file = 'm\.gguf': .*prepare the model first"):
        shape_of_model(PackageModel(source="package", package="p", file="m.gguf", **LIMITS))
    with pytest.raises(ConfigError, match=r"config\.json: no such file; prepare the model first"):
        shape_of_checkpoint(checkpoint / "nowhere")


def test_what_cannot_be_read_is_named():
    with pytest.raises(ConfigError, match=r"here: model_type = 'gpt5': its memory is not planned, .*KeyError: 'gpt5'"):
        shape_of({"model_type": "gpt5"}, "here")
    with pytest.raises(ConfigError, match=r"here: model_type = None"):
        shape_of({}, "here")
    # Its forward pass asks how many tokens each expert gets.
    config = tiny_model("jetmoe").config.to_dict()
    with pytest.raises(ConfigError, match=r"model_type = 'jetmoe': its memory is not planned, .*DataDependentOutput"):
        shape_of(config, "here")


def test_commands_that_ask_for_no_shape_do_not_load_transformers():
    command = "import sys, sfpo.jobs, sfpo.plan.remedies, sfpo.plan.__main__; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False, timeout=60).returncode == 0
