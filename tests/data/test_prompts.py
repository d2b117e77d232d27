import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sfpo.data.prompts import load_problems, load_prompts, prompts_sha256, render, require_chat_template
from sfpo.data.rows import Row, write_rows
from sfpo.schema import ConfigError
from sfpo.types import Prompt

TEMPLATE = "{% for m in messages %}<u>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
CHARACTERS = "0123456789+=?{}problem "


@pytest.fixture
def tokenizer():
    """One token a character; <u> opens the user's turn, <a> the answer."""
    vocabulary = {token: index for index, token in enumerate(["<u>", "<a>", "<unk>", *CHARACTERS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<u>", "<a>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


ROWS = [
    Row("p/0", "1+2=?", ("3",), "1+2=3 \\boxed{3}"),
    Row("p/1", "problem {problem} {0}", ("\\frac{1}{2}", "7")),
]


def test_rows_come_back_as_they_were_written(tmp_path):
    write_rows(tmp_path / "rows.parquet", ROWS)
    assert load_problems(tmp_path / "rows.parquet") == ROWS
    assert pq.read_schema(tmp_path / "rows.parquet").names == ["id", "problem", "answer", "solution"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_no_rows_at_all(tmp_path):
    write_rows(tmp_path / "rows.parquet", [])
    assert load_problems(tmp_path / "rows.parquet") == []


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none.parquet: no such file; `python -m sfpo.data.prepare` writes it again"):
        load_problems(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("not parquet")
    with pytest.raises(ConfigError, match=r"bad.parquet: not a valid parquet file"):
        load_problems(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"id": ["a"], "question": ["q"]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="its columns are id, question, not id, problem, answer, solution"):
        load_problems(tmp_path / "other.parquet")


def test_a_prompt_is_one_user_turn_open_for_the_answer(tokenizer):
    ids = render(tokenizer, "{problem}", "1+2=?")
    assert type(ids) is list
    assert all(type(index) is int for index in ids)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<u>", "1", "+", "2", "=", "?", "<a>"]


def test_braces_stay_as_they_are(tokenizer):
    """Neither the instruction's \\boxed{} nor the problem's {0} is a place to fill."""
    ids = render(tokenizer, "{problem} {}", "{0}")
    assert "".join(tokenizer.convert_ids_to_tokens(ids)) == "<u>{0} {}<a>"


def test_the_date_in_a_template_does_not_move(tokenizer):
    """As in the templates of Llama 3 and SmolLM3: '01 Jan 2026', on any day."""
    tokenizer.chat_template = "{{ strftime_now('%d %m %Y') }}" + TEMPLATE
    day = "".join(tokenizer.convert_ids_to_tokens(render(tokenizer, "{problem}", "1"))).partition("<u>")[0]
    assert day == "01 01 2026"


def test_the_hash_of_prompts_moves_with_all_that_decides_them(tokenizer, tmp_path):
    def digest(instruction="{problem}", rows=ROWS):
        write_rows(tmp_path / "rows.parquet", rows)
        prompts, _ = load_prompts(tmp_path / "rows.parquet", tokenizer, instruction, max_prompt_tokens=99)
        return prompts_sha256((prompt.id, prompt.token_ids) for prompt in prompts)

    first = digest()
    assert digest() == first
    assert len({first, digest("{problem}="), digest(rows=ROWS[:1]), digest(rows=ROWS[::-1])}) == 4
    tokenizer.chat_template = TEMPLATE + "0"
    assert digest() != first


def test_prompts_over_the_limit_are_named(tokenizer, tmp_path):
    write_rows(tmp_path / "rows.parquet", ROWS)
    # "1+2=?" takes 5 + 2 tokens, "problem {problem} {0}" takes 21 + 2.
    prompts, too_long = load_prompts(tmp_path / "rows.parquet", tokenizer, "{problem}", max_prompt_tokens=22)
    assert prompts == [Prompt("p/0", "1+2=?", ("3",), render(tokenizer, "{problem}", "1+2=?"))]
    assert too_long == ["p/1"]
    assert load_prompts(tmp_path / "rows.parquet", tokenizer, "{problem}", max_prompt_tokens=23)[1] == []


def test_no_prompt_left(tokenizer, tmp_path):
    write_rows(tmp_path / "rows.parquet", ROWS)
    with pytest.raises(ConfigError, match=r"no prompt is within max_prompt_tokens = 6 \(2 are longer\)"):
        load_prompts(tmp_path / "rows.parquet", tokenizer, "{problem}", max_prompt_tokens=6)


def test_a_saved_tokenizer_with_a_template_passes(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert require_chat_template(tmp_path) is None  # it raises where there is none


def test_a_template_inside_the_tokenizer_config_passes(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert require_chat_template(tmp_path) is None


def test_a_tokenizer_without_a_template_is_refused(tokenizer, tmp_path):
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=rf"{tmp_path}: the tokenizer has no chat template .* use an instruction-tuned model"):
        require_chat_template(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the tokenizer has no chat template"):
        require_chat_template(tmp_path)
