"""Layouts of micro-batches: every completion token once."""

import torch

from sfpo.trainer.packing import balanced_partition, micro_batches

CPU = torch.device("cpu")


def test_one_micro_batch_by_hand():
    # Two completions of prompt 1 2, one of prompt 4.
    (micro,) = micro_batches([[1, 2], [1, 2], [4]], [[3], [8, 9], [5, 6, 7]], max_tokens=99, device=CPU)
    assert micro.input_ids.tolist() == [[1, 2, 3, 8, 9, 4, 5, 6, 7]]
    assert micro.position_ids.tolist() == [[0, 1, 2, 2, 3, 0, 1, 2, 3]]
    # 3 and 8 are both predicted by the prompt's 2 (position 1), 9 by 8 (position 3); 5, 6, 7 by 4, 5, 6 (5, 6, 7).
    assert micro.positions.tolist() == [1, 1, 3, 5, 6, 7]
    assert micro.targets.tolist() == [3, 8, 9, 5, 6, 7]
    assert micro.rows == [0, 1, 2] and micro.tokens.tolist() == [0, 1, 2, 3, 4, 5]
    assert [(group.prompt, group.completions) for group in micro.groups] == [(2, [1, 2]), (1, [3])]


def test_padded_rows_by_hand():
    # Sequences of 3, 4 and 4 tokens: the longest first, two of them in 8 tokens; then the third.
    prompts, completions = [[1, 2], [1, 2], [4]], [[3], [8, 9], [5, 6, 7]]
    first, second = micro_batches(prompts, completions, max_tokens=8, device=CPU, layout="padded")
    assert first.rows == [1, 2] and first.input_ids.tolist() == [[1, 2, 8, 9], [4, 5, 6, 7]]
    # 8 is predicted at position 1 of the first row, 9 at 2; 5, 6, 7 at 0, 1, 2 of the second, which are 4, 5, 6 of both.
    assert first.positions.tolist() == [1, 2, 4, 5, 6] and first.targets.tolist() == [8, 9, 5, 6, 7]
    # Of the batch's tokens 3 | 8 9 | 5 6 7 these are numbers 1 to 5.
    assert first.tokens.tolist() == [1, 2, 3, 4, 5] and first.groups is None and first.position_ids is None
    assert second.rows == [0] and second.input_ids.tolist() == [[1, 2, 3]] and second.tokens.tolist() == [0]
    (both,) = micro_batches(prompts[:2], completions[:2], max_tokens=8, device=CPU, layout="padded")
    assert both.input_ids.tolist() == [[1, 2, 8, 9], [1, 2, 3, 0]] and both.targets.tolist() == [8, 9, 3]


def test_sequences_go_one_by_one_whatever_the_budget():
    parts = list(micro_batches([[1], [1], [2]], [[3], [4, 5], [6]], 99, CPU, layout="sequences"))
    assert [part.input_ids.tolist() for part in parts] == [[[1, 4, 5]], [[1, 3]], [[2, 6]]]


def test_a_sequence_longer_than_rotary_embeddings_were_trained_for_stands_alone():
    # Sequences of 2, 4, 2 and 2 tokens, of which more than 3 stand alone.
    prompts, completions = [[1]] * 4, [[3], [4, 5, 6], [7], [8]]
    for layout, rows in (("groups", [[0], [1], [2, 3]]), ("padded", [[1], [0, 2, 3]])):
        assert [part.rows for part in micro_batches(prompts, completions, 99, CPU, layout=layout, alone_from=3)] == rows


def test_a_prompt_counts_once_and_a_long_sequence_stands_alone():
    # Budget 8: prompt 3 + 2 + 2 = 7 fit, the third completion starts anew with its prompt; 3 + 9 is over the budget.
    sizes = [len(m.rows) for m in micro_batches([[1, 2, 3]] * 4, [[4] * 2, [4] * 2, [4] * 2, [4] * 9], 8, CPU)]
    assert sizes == [2, 1, 1]


def test_left_out_rows_are_not_in_it():
    (micro,) = micro_batches([[1], [1], [2]], [[3], [4, 5], [6]], 99, CPU, rows=[1, 2])
    assert micro.input_ids.tolist() == [[1, 4, 5, 2, 6]] and micro.tokens.tolist() == [1, 2, 3] and micro.rows == [1, 2]


def test_the_longest_are_dealt_first_each_to_the_shortest_share():
    # 9 to the first, 7 to the second, 5 to the second (12), 4 to the first (13), 3 to the second (15), 1 to the first (14).
    assert balanced_partition([4, 9, 1, 7, 3, 5], 2) == [[0, 1, 2], [3, 4, 5]]
    assert balanced_partition([4, 9, 1], 1) == [[0, 1, 2]] and balanced_partition([5], 3) == [[0], [], []]


def test_ranks_share_the_rows_group_by_group_in_as_many_micro_batches_each():
    # Groups of 2 + 2, 1 + 9 and 1 + 1 tokens: rank 0 takes the second, rank 1 the others, in two parts of at most 5 tokens.
    prompts, completions = [[1, 2], [1, 2], [3], [4]], [[5], [6], [7] * 9, [8]]
    first, second = (list(micro_batches(prompts, completions, 5, CPU, rank=rank, ranks=2)) for rank in (0, 1))
    assert [micro.rows for micro in first] == [[2], []] and [micro.rows for micro in second] == [[0, 1], [3]]
    empty = first[1]
    assert empty.input_ids.shape == (1, 1) and len(empty.positions) == len(empty.targets) == len(empty.tokens) == 0


def test_ranks_share_rows_too():
    # Groups as above: rank 0 takes the sequence of 10 tokens; rank 1 the others, two at 3 + 3 tokens, then one of 2.
    prompts, completions = [[1, 2], [1, 2], [3], [4]], [[5], [6], [7] * 9, [8]]
    first, second = (list(micro_batches(prompts, completions, 6, CPU, rank=rank, ranks=2, layout="padded")) for rank in (0, 1))
    assert [micro.rows for micro in first] == [[2], []] and [micro.rows for micro in second] == [[0, 1], [3]]
    assert first[1].input_ids.tolist() == [[0]] and len(first[1].targets) == 0
