"""Converts a model's weights to the names and layout of its published checkpoint, which exports and vLLM use.

transformers stores some models under other names than their checkpoints: experts of a layer in one tensor, a renamed head or
prefix. ``published`` does the same as its reverse conversion (transformers/core_model_loading.py,
``revert_weight_conversion``), but creates the tensors one by one instead of all at once, to save memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel

from sfpo.transformers_internals import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

Entries = Mapping[str, Callable[[], Tensor]]
"""Name in the model -> function that returns the tensor."""


def stored_once(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a model's state dict that its checkpoint stores: parameters and persistent buffers, tied ones only once.

    Args:
        tensors: ``state_dict(keep_vars=True)`` of the model, where tied tensors are the same object.
    """
    left_out = re.compile("|".join(model._keys_to_ignore_on_save or ()) or r"(?!)")
    tied = model.all_tied_weights_keys.keys()
    seen: dict[int, str] = {}
    for name in sorted(tensors, key=lambda name: name in tied):  # stable sort: names that others are tied to come first
        if not left_out.search(name):
            seen.setdefault(id(tensors[name]), name)
    kept = set(seen.values())
    return {name: tensor for name, tensor in tensors.items() if name in kept}


def published(model: PreTrainedModel, entries: Entries) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of ``entries`` with the names and layout of the checkpoint from which ``model`` was loaded.

    Only the tensors of one conversion (such as the experts of a layer) are in memory at a time.
    """
    # The conversions used when loading; none if the checkpoint has transformers' own names.
    back = [conversion.reverse_transform() for conversion in reversed(getattr(model, "_weight_conversions", None) or [])]
    renamings = [one for one in back if isinstance(one, WeightRenaming)]
    converters = [one for one in back if isinstance(one, WeightConverter)]
    of_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    conversions: dict[str, WeightConverter | WeightRenaming] = {}
    for name in sorted(entries, key=dot_natural_key):
        renamed, pattern = rename_source_key(name, renamings, converters, reverse=True)
        conversion = deepcopy(of_pattern[pattern]) if pattern else WeightRenaming(name, renamed)
        deferred = cast(Any, entries[name])  # typed for futures, but callables are accepted too
        conversions.setdefault(renamed, conversion).add_tensor(renamed, name, pattern or name, deferred)
    for name, conversion in conversions.items():
        for target, tensor in conversion.convert(name, model=model, config=model.config).items():
            yield target, tensor[0] if isinstance(tensor, list) else tensor
