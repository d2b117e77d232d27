"""What the queries of a packed row see, and how it is found out."""

import pytest
import torch
from transformers.masking_utils import (
    and_masks,
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    sliding_window_causal_mask_function,
)

from sfpo.trainer.masks import PromptGroup, _windows, group_mask, key_places, packed
from sfpo.trainer.packing import varlen

GROUPS = [PromptGroup(2, [1, 2]), PromptGroup(1, [3])]
"""Two completions, of 1 and 2 tokens, of a prompt of 2; then a plain sequence of 1 + 3."""


def test_masks_by_hand():
    with packed(GROUPS):  # a window of 3 tokens
        causal = group_mask(1, 9, 9, causal_mask_function)
        window = group_mask(1, 9, 9, sliding_window_causal_mask_function(3))
    shown = lambda masks: [None if mask is None else mask.int().tolist() for mask in masks]  # noqa: E731
    assert shown(causal.masks[0]) == [None, [[1, 1, 1]], [[1, 1, 1, 0], [1, 1, 1, 1]]] and shown(causal.masks[1]) == [None]
    # The prompt is within the window. The last query of the second completion is at position 3 and sees positions 1, 2 and 3.
    assert shown(window.masks[0]) == [None, [[1, 1, 1]], [[1, 1, 1, 0], [0, 1, 1, 1]]]
    assert shown(window.masks[1]) == [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]]]


def test_a_row_for_the_variable_length_kernel_by_hand():
    # The row is p0 p1 a0 b0 b1 q0 r0 r1 r2: a sees p0 p1 a0 (0 1 2), b sees p0 p1 b0 b1 (0 1 3 4).
    assert key_places(GROUPS) == [[0, 1], [0, 1, 2], [0, 1, 3, 4], [5, 6, 7, 8]]
    row = varlen(GROUPS, torch.device("cpu"))
    assert row.keys.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8] and row.keys.dtype == torch.int64
    # Queries: 2, 1, 2 and 4; keys: 2, 3, 4 and 4.
    assert row.cu_seq_q.tolist() == [0, 2, 3, 5, 9] and row.cu_seq_k.tolist() == [0, 2, 5, 9, 13]
    assert row.cu_seq_q.dtype == row.cu_seq_k.dtype == torch.int32 and (row.max_q, row.max_k) == (4, 4)


def sees_itself_and_the_first(batch, head, query, key):
    return (key == query) | (key == 0)


@pytest.mark.parametrize(
    ("function", "longest", "window"),
    [
        (causal_mask_function, 300, 512),  # looked at up to the next power of two
        (sliding_window_causal_mask_function(7), 300, 7),
        # First all that there is, and where there is more, a window: more than one block of rows.
        (sliding_window_causal_mask_function(1500), 100, 256),
        (sliding_window_causal_mask_function(1500), 2000, 1500),
        (and_masks(sliding_window_causal_mask_function(9), sliding_window_causal_mask_function(5)), 40, 5),
        (or_masks(causal_mask_function, sliding_window_causal_mask_function(5)), 40, 256),
        (or_masks(sees_itself_and_the_first, sliding_window_causal_mask_function(5)), 40, None),
        (chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.long)), 40, None),
        (chunked_causal_mask_function(64, torch.zeros(1, dtype=torch.long)), 40, 40),  # one chunk, and nothing known beyond
    ],
)
def test_the_window_of_a_mask(function, longest, window):
    with packed([PromptGroup(longest - 1, [1])]):
        found = group_mask(1, longest, longest, function)
    assert found.window == window and (found.visible is None) == (window is not None)


def test_a_mask_is_looked_at_once_for_all_functions_that_compute_the_same():
    before = len(_windows)
    for width in (11, 11, 12, 11):
        assert group_mask(1, 20, 20, sliding_window_causal_mask_function(width)).window == width
    assert len(_windows) == before + 2

    # A list may change, and with it what is computed: such a function is looked at each time.
    widths = [3]
    changing = lambda batch, head, query, key: (key <= query) & (key > query - widths[0])  # noqa: E731
    assert group_mask(1, 20, 20, changing).window == 3
    widths[0] = 4
    assert group_mask(1, 20, 20, changing).window == 4


def test_a_mask_is_made_for_the_row_alone():
    with packed([PromptGroup(2, [1, 2])]), pytest.raises(ValueError, match="needs 5 tokens without padding, got 6 queries"):
        group_mask(1, 6, 6, causal_mask_function)
    with pytest.raises(ValueError, match="without padding"):
        group_mask(1, 3, 3, causal_mask_function, attention_mask=torch.tensor([[True, True, False]]))


def test_heads_that_see_different_keys_are_refused():
    by_head = lambda batch, head, query, key: (key <= query) & (head + torch.zeros(1, 2, 1, 1) >= 0)  # noqa: E731
    with pytest.raises(ValueError, match="masks that are the same for all heads"):
        group_mask(1, 3, 3, by_head)
