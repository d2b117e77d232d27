"""Two steps of SFPO with models whose head, attention, layers or experts are not those of Llama."""

import json
import shutil

import pytest
from transformers import AutoConfig

from sfpo.manifest import write_manifest
from sfpo.trainer.loop import train
from tests.changes import changed
from tests.models.tiny_families import tiny_model

PACKING = {"gemma2": "groups", "gpt_oss": "groups", "granite": "groups", "qwen3_moe": "groups", "qwen3_5_text": "padded"}


@pytest.mark.slow
@pytest.mark.parametrize("family", PACKING)
def test_two_steps(family, checkpoint, settings, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)  # for its tokenizer and generation settings
    config = AutoConfig.from_pretrained(checkpoint)
    sizes = {name: getattr(config, name) for name in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")}
    tiny_model(family, **sizes, max_position_embeddings=512).save_pretrained(folder)
    shutil.copy(checkpoint / "generation_config.json", folder)
    write_manifest(folder)
    (tmp_path / "run").mkdir()
    sampler = {"library": "transformers", "dtype": "float32"}
    train(changed(settings, model_path=str(folder), recipe__train__steps=2, recipe__sampler=sampler), tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    with capsys.disabled():
        print(f"\n{family}: sampler gap {[record['sampler_gap_max'] for record in records]}, canary {summary['canary']}")
    assert len(records) == 2 and all(record["updates"][0]["grad_norm"] > 0 for record in records)
    assert all(record["sampler_gap_mean"] < 5e-4 for record in records)
    assert summary["canary"]["packing"] == PACKING[family] and summary["canary"]["sampler"]["moved_by"] > 0.05
