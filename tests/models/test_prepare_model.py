"""From a settings file to a checkpoint folder, for models that exist already."""

import json
import shutil

import pytest
import torch
from loopback_model_hub import COMMIT, serve_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sfpo.config import HubModel, LocalModel
from sfpo.manifest import read_manifest
from sfpo.models.prepare import complete, main, prepare
from sfpo.models.published import taken
from sfpo.schema import ConfigError
from sfpo.settings import ModelSettings, settings_hash, to_json


def settings_of(model):
    return ModelSettings(name="model", model=model, instruction="{problem}", warm_up_data=None, data=None, grader="math")


def local(path, limits):
    return settings_of(LocalModel(source="local", path=str(path), **limits.model_dump()))


@pytest.fixture
def source(checkpoint, tmp_path):
    """A copy of a model folder, to damage."""
    return shutil.copytree(checkpoint, tmp_path / "source")


def change(path, **keys):
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


# ---------------------------------------------------------------------------------------------- local


def test_a_local_model_is_prepared_from_the_command_line(source, limits, tmp_path):
    for name in ("pytorch_model.bin", "modeling_extra.py", "training_args.pt", "README.md"):
        (source / name).write_text("not taken")
    (source / "onnx").mkdir()
    (source / "onnx/config.json").write_text("{}")
    settings = local(source, limits)
    path = tmp_path / "models/settings.json"
    path.parent.mkdir()
    path.write_text(to_json(settings))
    main([str(path)])
    folder = path.parent / "checkpoint"
    manifest = read_manifest(folder)
    original = AutoModelForCausalLM.from_pretrained(source)
    assert (manifest["settings_hash"], manifest["source"]) == (settings_hash(settings), "local")
    assert manifest["parameters"] == original.num_parameters()
    assert sorted(manifest["files"]) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["checkpoint", "settings.json"]
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder).encode("12+30=?")])
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder)(ids).logits, original(ids).logits)


def test_a_second_preparation_replaces_the_first_and_what_a_crash_left(source, limits, tmp_path):
    folder = tmp_path / "checkpoint"
    for old in (folder, tmp_path / ".checkpoint.partial"):
        old.mkdir()
        (old / "old.safetensors").write_text("")
    prepare(local(source, limits), folder)
    assert "old.safetensors" not in read_manifest(folder)["files"]
    assert not (folder / "old.safetensors").exists()


def test_a_failed_preparation_leaves_the_last_one(source, limits, tmp_path):
    folder = tmp_path / "checkpoint"
    prepare(local(source, limits), folder)
    before = read_manifest(folder)
    (source / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError):
        prepare(local(source, limits), folder)
    assert read_manifest(folder) == before


def test_a_model_without_a_chat_template_is_refused(source, limits, tmp_path):
    (source / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"no chat template.*add its family's template"):
        prepare(local(source, limits), tmp_path / "checkpoint")


def test_a_model_in_pickle_alone_is_refused(source, limits, tmp_path):
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"source: has no \.safetensors weights \(other weights: pytorch_model\.bin\)"):
        prepare(local(source, limits), tmp_path / "checkpoint")


def test_a_missing_folder_and_one_without_a_model_are_named(limits, tmp_path):
    with pytest.raises(ConfigError, match="absent': no such folder"):
        prepare(local(tmp_path / "absent", limits), tmp_path / "checkpoint")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: has no config\.json"):
        prepare(local(tmp_path / "empty", limits), tmp_path / "checkpoint")


def test_what_is_taken_of_a_sharded_repository():
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    tokenizer = ["merges.txt", "tokenizer.model", "vocab.json", "tokenizer.json", "LICENSE"]
    left = ["pytorch_model.bin", "original/model.safetensors", "tokenization_x.py", "flax_model.msgpack", ".gitattributes"]
    assert taken("m", [*left, *names, *tokenizer, "config.json"]) == sorted([*names, *tokenizer, "config.json"])


# ---------------------------------------------------------------------------------------------- tokens


def test_the_token_that_ends_a_turn_joins_the_stop_tokens(source):
    """As in a base model: its settings name <|pad|> (0) as the end, its chat template closes turns with <|im_end|>."""
    change(source / "generation_config.json", eos_token_id=0)
    change(source / "tokenizer_config.json", eos_token="<|pad|>")
    complete(source, "model 'tiny'", {})
    end = AutoTokenizer.from_pretrained(source).convert_tokens_to_ids("<|im_end|>")
    assert GenerationConfig.from_pretrained(source).eos_token_id == [0, end]


def test_padding_is_not_the_end_of_a_turn_where_another_token_can_pad(source):
    change(source / "tokenizer_config.json", pad_token="<|im_end|>")
    complete(source, "model 'tiny'", {})
    tokenizer = AutoTokenizer.from_pretrained(source)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|im_end|>")
    assert GenerationConfig.from_pretrained(source).pad_token_id == tokenizer.convert_tokens_to_ids("<|pad|>")


def test_padding_stays_the_end_of_a_turn_where_no_token_can_pad(source):
    """Both special tokens that are not the start of a turn end one here."""
    change(source / "tokenizer_config.json", pad_token="<|im_end|>", eos_token="<|pad|>")
    complete(source, "model 'tiny'", {})
    assert AutoTokenizer.from_pretrained(source).pad_token in ("<|im_end|>", "<|pad|>")


def test_missing_generation_settings_are_written(source):
    (source / "generation_config.json").unlink()
    complete(source, "model 'tiny'", {})
    assert GenerationConfig.from_pretrained(source).eos_token_id == AutoTokenizer.from_pretrained(source).eos_token_id


def test_other_generation_settings_stay(source):
    change(source / "generation_config.json", repetition_penalty=1.05)
    complete(source, "model 'tiny'", {})
    assert GenerationConfig.from_pretrained(source).repetition_penalty == 1.05


def test_a_model_without_an_end_of_a_turn_is_refused(source):
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        keys = json.loads((source / name).read_text())
        (source / name).write_text(json.dumps({key: value for key, value in keys.items() if not key.startswith("eos_token")}))
    (source / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }}\n{% endfor %}")
    with pytest.raises(ConfigError, match="no token ends a turn"):
        complete(source, "model 'tiny'", {})


def test_a_scratch_model_needs_a_data_set(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="warm_up_data"):
        prepare(settings_of(tiny_model), tmp_path / "checkpoint")


# ---------------------------------------------------------------------------------------------- the hub


def online(monkeypatch, endpoint):
    """What HF_ENDPOINT and HF_HUB_OFFLINE do when the client is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch, source):
    """The real client, online, against a server here that serves ``source`` as owner/tiny."""
    with serve_model("owner/tiny", source) as endpoint:
        online(monkeypatch, endpoint)
        yield


def on_hub(limits, name="owner/tiny", revision="main"):
    return settings_of(HubModel(source="hub", id=name, revision=revision, **limits.model_dump()))


def test_a_hub_model_is_downloaded_with_its_commit(hub, source, limits, tmp_path):
    (source / "pytorch_model.bin").write_text("not taken")
    (source / "modeling_extra.py").write_text("raise SystemExit('not taken')")
    prepare(on_hub(limits), tmp_path / "checkpoint")
    manifest = read_manifest(tmp_path / "checkpoint")
    assert (manifest["source"], manifest["commit"]) == ("hub", COMMIT)
    assert not [name for name in manifest["files"] if name.endswith((".bin", ".py")) or "cache" in name]
    assert (tmp_path / "checkpoint/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("name", "revision"), [("owner/tiny", "v9"), ("owner/absent", "main"), ("not a name", "main")])
def test_hub_faults_name_the_model_and_the_remedy(hub, limits, tmp_path, name, revision):
    with pytest.raises(
        ConfigError, match=f"(?s)hub model '{name}', revision '{revision}' cannot be downloaded .*source: local"
    ):
        prepare(on_hub(limits, name, revision), tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_a_hub_that_cannot_be_reached_is_said_so(monkeypatch, limits, tmp_path):
    online(monkeypatch, "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(ConfigError, match=r"(?s)cannot be downloaded .*check the id, your access to it and the connection"):
        prepare(on_hub(limits), tmp_path / "checkpoint")


def test_a_hub_model_in_pickle_alone_is_refused_before_the_download(hub, source, limits, tmp_path):
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"hub model 'owner/tiny': has no \.safetensors weights"):
        prepare(on_hub(limits), tmp_path / "checkpoint")
    assert list((tmp_path / ".checkpoint.partial").iterdir()) == []
