"""Chat templates: what they read is a setting, and one that cannot be used is refused by the model's name."""

import json

import pytest
from transformers import AutoTokenizer

from sfpo.config import LocalModel
from sfpo.data.prompts import render
from sfpo.models.prepare import prepare
from sfpo.models.templates import closing_of, reads
from sfpo.schema import ConfigError
from sfpo.settings import ModelSettings, settings_hash

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n{% endif %}{% endif %}"
)


@pytest.fixture
def make(checkpoint, limits, tmp_path):
    """Prepares a copy of the embedded model with another template."""

    def prepared(template: str | None, quantization: dict | None = None, **options):
        source = tmp_path / "source"
        source.mkdir()
        for path in checkpoint.iterdir():
            if path.name != "chat_template.jinja":
                (source / path.name).write_bytes(path.read_bytes())
        if template is not None:
            (source / "chat_template.jinja").write_text(template)
        if quantization:
            config = json.loads((source / "config.json").read_text())
            (source / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
        model = LocalModel(source="local", path=str(source), chat_template_options=options, **limits.model_dump())
        settings = ModelSettings(name="own", model=model, instruction="{problem}", warm_up_data=None, data=None, grader="math")
        prepare(settings, tmp_path / "checkpoint")
        return tmp_path / "checkpoint", settings

    return prepared


def text_of(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.decode(render(tokenizer, "{problem}", "1+1=?"))


def test_an_option_is_part_of_the_prepared_model_and_of_its_identity(make):
    folder, settings = make(TURNS, enable_thinking=False)
    # For every later reader, transformers' own call included.
    assert text_of(folder).endswith("<|im_start|>assistant\n<think>\n\n</think>\n")
    plain = settings.model_copy(update={"model": settings.model.model_copy(update={"chat_template_options": {}})})
    assert settings_hash(settings) != settings_hash(plain)


def test_without_options_the_template_stays_as_it_is(make):
    folder, _ = make(TURNS)
    assert (folder / "chat_template.jinja").read_text() == TURNS
    assert text_of(folder).endswith("<|im_start|>assistant\n")
    assert json.loads((folder / "manifest.json").read_text())["chat_template_reads"] == ["enable_thinking"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "True"), (None, "None"), (3, "3"), ("a '%}\" b\n", "a '%}\" b\n"), (["x", {"y": 1.5}], "['x', {'y': 1.5}]")],
)
def test_values_reach_the_template_as_they_are(make, value, text):
    folder, _ = make("{{ shown }}|" + TURNS, shown=value)
    assert text_of(folder).partition("|")[0] == text


def test_options_of_a_template_that_is_none_are_refused(make):
    with pytest.raises(ConfigError, match="model 'own': its chat template is not a valid Jinja template"):
        make(TURNS + "{% if %}", enable_thinking=False)


def test_an_option_that_the_template_does_not_read_is_refused(make):
    with pytest.raises(
        ConfigError, match=r"model 'own': chat_template_options.thinking = false: .* does not read it; it reads enable_thinking"
    ):
        make(TURNS, thinking=False)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (None, "model 'own': the tokenizer has no chat template"),
        (TURNS.replace("{{ m['content'] }}", "{{ m['content'] | lower }}"), "changes the user's message"),
        (TURNS.replace("{{ m['content'] }}", "{{ m['content'] | e }}"), "changes the user's message"),
        (TURNS.replace("{{ m['content'] }}", ""), "changes the user's message"),
        ("{{ raise_exception('roles must alternate') }}", r"fails on a question and an answer \(roles must alternate\)"),
        (TURNS + "{{ messages[7].content.x }}", "fails on a question and an answer"),
        (TURNS + "{% if %}", "fails on a question and an answer"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_the_models_name(make, template, fault):
    with pytest.raises(ConfigError, match=fault) as error:
        make(template)
    assert "model 'own'" in str(error.value)


def test_a_template_that_leaves_answers_out_ends_none(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.chat_template = TURNS.replace("{% for m in messages %}", "{% for m in messages if m.role == 'user' %}")
    assert closing_of(tokenizer, "it") is None  # not the marker that opens the user's turn


def test_what_a_template_reads_is_found(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.chat_template = "{{ bos_token }}{{ strftime_now('%Y') }}{% if tools %}{{ date_string }}{% endif %}" + TURNS
    assert reads(tokenizer) == {"tools", "date_string", "enable_thinking"}


def test_a_template_that_writes_the_first_token_leaves_it_at_one(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0].content }}"
    first = tokenizer.bos_token_id
    assert render(tokenizer, "{problem}", "1+1=?").count(first) == 1


def test_quantized_weights_are_refused(make):
    with pytest.raises(ConfigError, match=r"model 'own': quantized weights \(mxfp4\) cannot be trained"):
        make(TURNS, quantization={"quant_method": "mxfp4"})
