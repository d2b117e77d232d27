"""The internals of transformers that this project uses. Other modules import them from here.

Private attributes of models that are read in place: ``_keys_to_ignore_on_save``, ``all_tied_weights_keys`` and
``_weight_conversions`` (trainer/published_names.py), ``_can_set_attn_implementation`` (trainer/canary.py),
``AutoModel._model_mapping`` (rollouts/vllm_engine.py). tests/test_internals.py checks all of them.
"""

import inspect

import transformers

TESTED = "5.19"
"""The release of transformers that is tested."""

try:
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key
    from transformers.initialization import no_init_weights
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
    from transformers.pytorch_utils import Conv1D
    from transformers.utils.chat_template_utils import _get_template_variables as template_variables
except ImportError as error:
    raise ImportError(
        f"{error}. transformers {transformers.__version__} has changed an internal that sfpo uses; it is tested with {TESTED}"
    ) from error


def without_cache(model: transformers.PreTrainedModel) -> dict[str, bool]:
    """The argument that makes a forward pass build no KV cache, if the model accepts it."""
    accepted = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    return {"use_cache": False} if takes_any or "use_cache" in accepted else {}


__all__ = [
    "PRETOKENIZE_REGEX",
    "TESTED",
    "AttentionMaskInterface",
    "Conv1D",
    "GradientCheckpointingLayer",
    "WeightConverter",
    "WeightRenaming",
    "dot_natural_key",
    "no_init_weights",
    "rename_source_key",
    "sdpa_attention_forward",
    "sdpa_mask",
    "template_variables",
    "without_cache",
]
