"""A model's weights under the names of its published checkpoint, which exports and vLLM read.

transformers holds some models under other names than it reads them by: the experts of a layer as one tensor, a renamed head or
prefix. ``published`` is its own way back (transformers/core_model_loading.py, ``revert_weight_conversion``), with each tensor
made when it is its turn instead of all at once.
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
"""Name in the model -> what makes the tensor."""


def stored_once(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those entries of a model's state dict that its checkpoint stores: parameters and persistent buffers, of tied ones the one
    that the others are tied to.

    Args:
        tensors: by name, as they stand in the model (``state_dict(keep_vars=True)``): tied ones are the same object.
    """
    left_out = re.compile("|".join(model._keys_to_ignore_on_save or ()) or r"(?!)")
    tied = model.all_tied_weights_keys.keys()
    seen: dict[int, str] = {}
    for name in sorted(
        tensors, key=lambda name: name in tied
    ):  # stable; where a name is tied to another, the other comes first
        if not left_out.search(name):
            seen.setdefault(id(tensors[name]), name)
    kept = set(seen.values())
    return {name: tensor for name, tensor in tensors.items() if name in kept}


def published(model: PreTrainedModel, entries: Entries) -> Iterator[tuple[str, Tensor]]:
    """The tensors of ``entries`` under the names of the checkpoint that ``model`` was loaded from, and in its layout.

    What one conversion takes and gives (the experts of a layer) is in memory together, nothing else.
    """
    # The conversions that loading used; a checkpoint that transformers' own names are stored in needed none.
    back = [conversion.reverse_transform() for conversion in reversed(getattr(model, "_weight_conversions", None) or [])]
    renamings = [one for one in back if isinstance(one, WeightRenaming)]
    converters = [one for one in back if isinstance(one, WeightConverter)]
    of_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    conversions: dict[str, WeightConverter | WeightRenaming] = {}
    for name in sorted(entries, key=dot_natural_key):
        renamed, pattern = rename_source_key(name, renamings, converters, reverse=True)
        conversion = deepcopy(of_pattern[pattern]) if pattern else WeightRenaming(name, renamed)
        made_later = cast(Any, entries[name])  # typed for futures; callables are taken too
        conversions.setdefault(renamed, conversion).add_tensor(renamed, name, pattern or name, made_later)
    for name, conversion in conversions.items():
        for target, tensor in conversion.convert(name, model=model, config=model.config).items():
            yield target, tensor[0] if isinstance(tensor, list) else tensor
