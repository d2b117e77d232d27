"""A very small model that learns to say a digit after its problem."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from sfpo.config import LocalModel, ScratchModel, WarmUp
from sfpo.data.rows import Row, write_rows
from sfpo.manifest import file_sha256
from sfpo.models.prepare import prepare
from sfpo.models.scratch import new_policy, train_tokenizer
from sfpo.models.warm_up import IGNORED, Example, Learner, build, collate, read_examples, warm_up
from sfpo.schema import ConfigError
from sfpo.settings import ModelSettings
from sfpo.staleness import changed_input
from sfpo.types import Prompt

ROWS = [
    Row(id=f"digits/{digit}", problem=f"{digit}=?", answer=(str(digit),), solution=rf"\boxed{{{digit}}}") for digit in range(8)
]


def small(seed=0, max_prompt_tokens=32, max_completion_tokens=12, **warm_up_keys):
    keys = {"learning_rate": 1e-2, "batch_size": 8, "max_batches": 400, "check_every": 5, "check_prompts": 64}
    return ScratchModel(
        source="scratch",
        architecture="llama",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        vocabulary_size=300,
        max_prompt_tokens=max_prompt_tokens,
        max_completion_tokens=max_completion_tokens,
        warm_up=WarmUp(dataset="digits", **{**keys, "pass_rate": (0.3, 0.9), **warm_up_keys}),
        seed=seed,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    write_rows(folder / "train.parquet", ROWS)
    write_rows(
        folder / "validation.parquet", [Row(f"v/{copy}{row.id}", row.problem, row.answer) for copy in range(8) for row in ROWS]
    )
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([text for row in ROWS for text in (row.problem, row.solution)], 300)


def test_it_stops_inside_the_band(data, tmp_path):
    facts = build(small(), "{problem}", data, tmp_path)
    *before, last = [entry["pass_rate"] for entry in facts["warm_up"]]
    assert 0.3 <= last <= 0.9
    assert all(not 0.3 <= rate <= 0.9 for rate in before)
    assert facts["warm_up"][-1]["loss"] < facts["warm_up"][0]["loss"]
    assert facts["examples_over_token_limits"] == []


def test_a_checkpoint_records_the_rows_that_it_learned_on(data, tmp_path):
    model = small(max_batches=1, check_every=1, check_prompts=1, pass_rate=(0.0, 1.0))
    of_model = {"instruction": "{problem}", "warm_up_data": str(data), "data": "digits", "grader": "math"}
    prepare(ModelSettings(name="small", model=model, **of_model), tmp_path / "checkpoint")
    manifest = json.loads((tmp_path / "checkpoint/manifest.json").read_text())
    assert sorted(manifest["inputs"]) == [f"{data}/train.parquet", f"{data}/validation.parquet"]
    assert changed_input(manifest) is None
    write_rows(data / "train.parquet", ROWS[::-1])  # the same settings, other rows
    try:
        assert changed_input(manifest) == f"{data}/train.parquet changed"
    finally:
        write_rows(data / "train.parquet", ROWS)


def test_a_pretrained_model_is_warmed_up_from_where_it_is_and_keeps_its_data_type(data, tmp_path):
    start = tmp_path / "start"
    build(small(), "{problem}", data, start)  # right in 30 to 90% of samples
    AutoModelForCausalLM.from_pretrained(start, dtype=torch.bfloat16).save_pretrained(start)
    keys = {"learning_rate": 3e-3, "batch_size": 8, "max_batches": 200, "check_every": 5, "check_prompts": 64}
    band = WarmUp(dataset="digits", **keys, pass_rate=(0.95, 1.0))
    limits = {"max_prompt_tokens": 32, "max_completion_tokens": 12}
    local = {"source": "local", "path": str(start), **limits}
    of_data = {"instruction": "{problem}", "warm_up_data": str(data), "data": "rows", "grader": "math"}
    settings = ModelSettings(name="mine", model=LocalModel(**local, warm_up=band), **of_data)
    prepare(settings, tmp_path / "checkpoint")
    manifest = json.loads((tmp_path / "checkpoint/manifest.json").read_text())
    assert manifest["warm_up"][-1]["pass_rate"] >= 0.95 and sorted(manifest["inputs"]) == [
        f"{data}/train.parquet",
        f"{data}/validation.parquet",
    ]
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (start, tmp_path / "checkpoint"))
    assert after.dtype == torch.bfloat16
    moved = (after.get_input_embeddings().weight - before.get_input_embeddings().weight).abs()
    assert 0 < moved.max() < 1  # on from there, not anew

    # Without a warm-up limits and data do not decide the checkpoint; with one they do.
    plain = {"name": "mine", "instruction": "{problem}", "grader": "math", "warm_up_data": None, "data": None}
    without, shorter = (
        ModelSettings(model=LocalModel(**{**local, **more}), **plain) for more in ({}, {"max_completion_tokens": 9})
    )
    assert without.identity() == shorter.identity() != settings.identity()
    other = settings.model_copy(update={"model": LocalModel(**{**local, "max_completion_tokens": 9}, warm_up=band)})
    assert other.identity() != settings.identity() != settings.model_copy(update={"data": "others"}).identity()


def test_equal_settings_give_equal_bytes_whatever_the_global_seed(data, tmp_path):
    digests = []
    for run, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / run).mkdir()
        torch.manual_seed(len(digests))
        build(small(seed=seed), "{problem}", data, tmp_path / run)
        digests.append({path.name: file_sha256(path) for path in sorted((tmp_path / run).iterdir())})
    first, again, other = digests
    assert first == again
    assert first["model.safetensors"] != other["model.safetensors"]
    assert first["tokenizer.json"] == other["tokenizer.json"]


def test_global_random_state_is_left_alone(data, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(small(), "{problem}", data, tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_above_the_band_it_goes_back_and_measures_twice_as_often(data, tmp_path):
    """400 batches on eight problems are far too many: back to 0, then 200, back to 0, 100 ..., until a stride falls short."""
    history = build(small(check_every=400, pass_rate=(0.2, 0.9)), "{problem}", data, tmp_path)["warm_up"]
    assert [entry["batches"] for entry in history[:2]] == [400, 200]
    assert history[0]["pass_rate"] > 0.9
    assert 0.2 <= history[-1]["pass_rate"] <= 0.9


def test_a_band_that_is_never_met_is_an_error_with_the_measurements(data, tmp_path):
    with pytest.raises(ConfigError, match=r"no pass rate within \[0.9, 1.0\] in 2 batches .measured: 0.0\d\d after 2"):
        build(small(max_batches=2, pass_rate=(0.9, 1.0)), "{problem}", data, tmp_path)


def test_a_band_narrower_than_a_batch_is_an_error(tokenizer):
    """64 answers move in steps of 1/64 = 0.0156: nothing lies between 0.501 and 0.515, so the stride shrinks to nothing."""
    model = small(check_every=2, max_batches=100, pass_rate=(0.501, 0.515))
    examples, _ = read_examples("train", ROWS, tokenizer, "{problem}", model)
    prompts = [Prompt(row.id, row.problem, row.answer, example.prompt_ids) for row, example in zip(ROWS, examples, strict=True)]
    with pytest.raises(ConfigError, match="widen pass_rate"):
        warm_up(new_policy(model, tokenizer), tokenizer, examples, prompts * 8, model)


def test_going_back_takes_weights_and_moments_along(tokenizer):
    """The same batch from the same state gives the same loss afterwards, and a state survives being gone back to."""
    model = small()
    examples, _ = read_examples("train", ROWS, tokenizer, "{problem}", model)
    learner = Learner(new_policy(model, tokenizer), examples, model)
    learner.learn(0)
    state = learner.state()
    tries = []
    for _ in range(3):
        tries.append([learner.learn(number) for number in (1, 2, 3)])
        learner.restore(state)
    assert tries[0] == tries[1] == tries[2]
    assert len(set(tries[0])) == 3


def test_the_loss_is_on_the_solution_alone_by_hand():
    """Two examples of 2 + 2 and 1 + 1 tokens, padded on the right with 9."""
    ids, labels = collate([Example([1, 2], [3, 4]), Example([5], [6])], pad=9)
    assert ids.tolist() == [[1, 2, 3, 4], [5, 6, 9, 9]]
    assert labels.tolist() == [[IGNORED, IGNORED, 3, 4], [IGNORED, 6, IGNORED, IGNORED]]


def test_parts_of_a_batch_weigh_by_their_solution_tokens(tokenizer):
    """A batch of 20 is learned in parts of 8, 8 and 4; its loss is still the mean over all solution tokens."""
    rows = [Row(f"r/{n}", f"{n}=?", (str(n),), rf"{'1' * (n % 4)} \boxed{{{n}}}") for n in range(20)]
    model = small(batch_size=20)
    examples, _ = read_examples("train", rows, tokenizer, "{problem}", model)
    policy = new_policy(model, tokenizer)
    ids, labels = collate(examples, tokenizer.pad_token_id)
    whole = policy(input_ids=ids, labels=labels).loss.item()
    assert Learner(policy, examples, model).learn(0) == pytest.approx(whole, rel=1e-5)


def test_examples_over_the_token_limits_are_counted(tokenizer):
    """'7=?' is <|im_start|> u..r \\n 7=? <|im_end|> \\n <|im_start|> a..t \\n: its prompt and its box set the limits here."""
    (example, *_), _ = read_examples("train", ROWS, tokenizer, "{problem}", small())
    prompt_tokens, completion_tokens = len(example.prompt_ids), len(example.completion_ids)
    assert example.completion_ids[-1] == tokenizer.eos_token_id
    exact = small(max_prompt_tokens=prompt_tokens, max_completion_tokens=completion_tokens)
    long_prompt = Row("x/prompt", "12=?", ("1",), r"\boxed{1}")
    long_solution = Row("x/solution", "1=?", ("1",), r"\boxed{11}")
    kept, too_long = read_examples("train", [ROWS[0], long_prompt, long_solution], tokenizer, "{problem}", exact)
    assert (len(kept), too_long) == (1, ["x/prompt", "x/solution"])
    with pytest.raises(ConfigError, match="no row is within max_prompt_tokens"):
        read_examples("train", [long_prompt], tokenizer, "{problem}", exact)


def test_rows_without_solutions_are_refused(data, tmp_path):
    write_rows(tmp_path / "train.parquet", [Row("math/00001", "1=?", ("1",))])
    with pytest.raises(ConfigError, match="row 'math/00001' has no solution"):
        build(small(), "{problem}", tmp_path, tmp_path)


def test_missing_data_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.parquet: no such file"):
        build(small(), "{problem}", tmp_path / "absent", tmp_path)
