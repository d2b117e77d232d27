"""Shapes against counts by hand, the models of transformers, and published numbers of weights."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sfpo.config import HubModel, LocalModel, PackageModel
from sfpo.plan.shapes import PUBLISHED, shape_of, shape_of_checkpoint, shape_of_model
from sfpo.schema import ConfigError

SIZES = {
    "hidden_size": 8,
    "intermediate_size": 10,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 20,
}
LIMITS = {"max_prompt_tokens": 8, "max_completion_tokens": 8}


def test_parameters_by_hand():
    # Heads of 2: queries 8 wide, keys and values 4. A layer: 8 x (8 + 4 + 4 + 8) = 192, 3 x 8 x 10 = 240, biases of queries,
    # keys, values 8 + 4 + 4 = 16: 448 in matrix products; two norms of 8: 464. Outside: 20 x 8 = 160, twice, and a norm of 8.
    shape = shape_of({**SIZES, "model_type": "qwen2", "tie_word_embeddings": False}, "here")
    assert (shape.attention_width, shape.key_width) == (8, 4)
    assert (shape.linear_parameters, shape.layer_parameters, shape.root_parameters) == (448, 464, 328)
    assert shape.parameters == 3 * 464 + 328


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


def test_every_source_of_a_model_tells_its_shape_or_says_what_to_do(params, checkpoint, tiny_model):
    prepared, of_params = shape_of_checkpoint(checkpoint), shape_of_model(tiny_model)
    assert of_params.vocab_size == tiny_model.vocabulary_size >= prepared.vocab_size
    assert of_params.layer_parameters == prepared.layer_parameters
    assert shape_of_model(LocalModel(source="local", path=str(checkpoint), **LIMITS)) == prepared
    with pytest.raises(ConfigError, match=r"id = 'some/model': .*give its config\.json"):
        shape_of_model(HubModel(source="hub", id="some/model", **LIMITS))
    with pytest.raises(ConfigError, match=r"file = 'm\.gguf': .*prepare the model first"):
        shape_of_model(PackageModel(source="package", package="p", file="m.gguf", **LIMITS))
    with pytest.raises(ConfigError, match=r"config\.json: no such file; prepare the model first"):
        shape_of_checkpoint(checkpoint / "nowhere")


def test_another_kind_of_model_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"here: model_type = 'gpt2': shapes are known of llama, qwen2, qwen3 alone"):
        shape_of({"model_type": "gpt2"}, "here")
