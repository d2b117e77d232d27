"""SFPO on TRL's GRPOTrainer, from nothing, on a CPU, in under a minute: a small Qwen2 adds two-digit numbers.

    pip install 'sfpo[trl]'
    python examples/trl_sfpo.py

Seconds of supervised training on worked sums make a policy that is sometimes right; some steps of SFPO go on from there. Prints
the mean reward of each step's rollouts. It shows how SFPO is set up, not what it gains.
"""

from __future__ import annotations

import argparse
import random
import tempfile

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, PrinterCallback, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from sfpo.integrations.trl import SlowFastCallback

STEPS, NUM_FAST_STEPS, ALPHA = 8, 3, 0.8
PROMPTS_PER_STEP, COMPLETIONS_PER_PROMPT, UPDATES_PER_PASS = 16, 8, 2
WARM_UP_BATCHES, WARM_UP_BATCH_SIZE = 250, 64


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    words = {character: number for number, character in enumerate(["<pad>", "<eos>", *"0123456789+="])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def make_policy() -> Qwen2ForCausalLM:
    shape = Qwen2Config(
        vocab_size=14,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return Qwen2ForCausalLM(shape).float()


def sums(count: int) -> list[dict[str, str]]:
    pairs = [(random.randint(10, 49), random.randint(10, 49)) for _ in range(count)]
    return [{"prompt": f"{one}+{other}=", "answer": str(one + other)} for one, other in pairs]


def warm_up(policy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Supervised training on answers; every prompt has 6 characters, every answer 2."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(WARM_UP_BATCHES):
        texts = [row["prompt"] + row["answer"] + "<eos>" for row in sums(WARM_UP_BATCH_SIZE)]
        ids = tokenizer(texts, return_tensors="pt")["input_ids"]
        logits = policy(input_ids=ids).logits[:, 5:-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 6:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


def reward(completions: list[str], answer: list[str], **_: object) -> list[float]:
    """1 for the right sum, else 0."""
    return [float(text.replace(" ", "") == gold) for text, gold in zip(completions, answer, strict=True)]


def main(folder: str) -> None:
    random.seed(0)
    torch.manual_seed(0)
    tokenizer, policy = make_tokenizer(), make_policy()
    warm_up(policy, tokenizer)
    args = GRPOConfig(
        output_dir=folder,
        num_iterations=NUM_FAST_STEPS + 1,
        max_steps=STEPS * (NUM_FAST_STEPS + 1) * UPDATES_PER_PASS,
        per_device_train_batch_size=PROMPTS_PER_STEP * COMPLETIONS_PER_PROMPT // UPDATES_PER_PASS,
        steps_per_generation=UPDATES_PER_PASS,
        gradient_accumulation_steps=1,
        num_generations=COMPLETIONS_PER_PROMPT,
        max_completion_length=4,
        loss_type="grpo",
        learning_rate=1e-4,
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
        train_dataset=Dataset.from_list(sums(2000)),
        processing_class=tokenizer,
    )
    trainer.add_callback(SlowFastCallback(NUM_FAST_STEPS, ALPHA))
    trainer.remove_callback(PrinterCallback)  # it would print all metrics at every optimizer step
    trainer.train()
    updates = (NUM_FAST_STEPS + 1) * UPDATES_PER_PASS
    rewards = [one["reward"] for one in trainer.state.log_history if "reward" in one and (one["step"] - 1) % updates == 0]
    for step, mean in enumerate(rewards, 1):
        print(f"step {step}: reward {mean:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where TRL may write; without it, a temporary one")
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        main(given or temporary)
