"""SFPO on TRL's GRPOTrainer, from nothing, on a CPU, in under a minute: a small Qwen2 adds two-digit numbers.
From the project's folder:

    pip install '.[trl]'
    python -m examples.trl_sfpo

Seconds of supervised training on worked sums make a policy that is sometimes right; four steps of SFPO go on from there. Prints
the mean reward of each step's rollouts. Four steps show how it is set up, not what it gains.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from sfpo.config import ScratchModel, WarmUp
from sfpo.data.arithmetic import generate
from sfpo.integrations.trl import SlowFastCallback
from sfpo.models.scratch import new_policy, train_tokenizer
from sfpo.models.warm_up import read_examples, warm_up
from sfpo.rewards.math_answer import grade
from sfpo.types import Prompt

STEPS, NUM_FAST_STEPS, ALPHA = 4, 3, 0.8
PROMPTS_PER_STEP, COMPLETIONS_PER_PROMPT, UPDATES_PER_PASS = 16, 8, 2
MODEL = ScratchModel(
    source="scratch",
    architecture="qwen2",
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=4,
    vocabulary_size=320,
    max_prompt_tokens=32,
    max_completion_tokens=32,
    warm_up=WarmUp(
        dataset="sums",
        learning_rate=3e-3,
        batch_size=32,
        max_batches=400,
        check_every=25,
        check_prompts=128,
        pass_rate=(0.15, 0.5),
    ),
)


def reward(completions: list[list[dict[str, str]]], answer: list[list[str]], **_: object) -> list[float]:
    """1 for an answer that is equivalent to the gold, else 0."""
    return [float(grade(turns[0]["content"], gold)) for turns, gold in zip(completions, answer, strict=True)]


def main(folder: str) -> None:
    rows = generate("sums", "train", 2000)
    tokenizer = train_tokenizer([text for row in rows for text in ("user\n", "assistant\n", row.problem, row.solution)], 320)
    examples, _ = read_examples(Path("sums"), rows, tokenizer, "{problem}", MODEL)
    prompts = [Prompt(row.id, row.problem, row.answer, example.prompt_ids) for row, example in zip(rows, examples, strict=True)]
    policy = new_policy(MODEL, tokenizer)
    warm_up(policy, tokenizer, examples, prompts[: MODEL.warm_up.check_prompts], MODEL)

    args = GRPOConfig(
        output_dir=folder,
        num_iterations=NUM_FAST_STEPS + 1,
        max_steps=STEPS * (NUM_FAST_STEPS + 1) * UPDATES_PER_PASS,
        per_device_train_batch_size=PROMPTS_PER_STEP * COMPLETIONS_PER_PROMPT // UPDATES_PER_PASS,
        steps_per_generation=UPDATES_PER_PASS,
        num_generations=COMPLETIONS_PER_PROMPT,
        max_completion_length=MODEL.max_completion_tokens,
        loss_type="grpo",
        learning_rate=3e-5,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": row.problem}], "answer": list(row.answer)} for row in rows]
        ),
        processing_class=tokenizer,
    )
    trainer.add_callback(SlowFastCallback(NUM_FAST_STEPS, ALPHA, {"form": "released", "window": 30, "threshold": 1.0}))
    trainer.remove_callback(PrinterCallback)  # it would print all metrics at every optimizer step
    trainer.train()
    rewards = [record["reward"] for record in trainer.state.log_history if "reward" in record]
    for step, mean in enumerate(rewards, 1):
        print(f"step {step}: reward {mean:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where TRL may write; without it, a temporary one")
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        main(given or temporary)
