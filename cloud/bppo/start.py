"""A small text model's supervised start: what reinforcement learning then begins from."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from .tasks import Task

# The learning rate was chosen for this hidden size.
_WIDTH = 128


def small_model(words: PreTrainedTokenizerBase, hidden: int, layers: int) -> Qwen3ForCausalLM:
    """A new Qwen3 decoder for a vocabulary of our own; `hidden` is a multiple of 32."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(words),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            num_key_value_heads=hidden // 32,
            head_dim=32,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            tie_word_embeddings=True,
        )
    )


def supervised_start(
    task: Task,
    words: PreTrainedTokenizerBase,
    out: Path,
    hidden: int,
    layers: int,
    examples: int = 10_000,
    epochs: float = 4,
    seed: int = 0,
    callbacks: list[TrainerCallback] | None = None,
) -> None:
    """Trains a new model of that size on the task's demonstrations and saves it and its tokenizer in `out`."""
    set_seed(seed)
    model = small_model(words, hidden, layers)
    rows = task.examples("train", examples)
    data = Dataset.from_list([{"prompt": e.prompt, "completion": e.demonstration + words.eos_token} for e in rows])
    args = SFTConfig(
        output_dir=str(out / "start"),
        num_train_epochs=epochs,
        per_device_train_batch_size=48,
        # Wider layers take smaller steps (Yang and others, arXiv 2203.03466).
        learning_rate=1.5e-3 * _WIDTH / hidden,
        lr_scheduler_type="cosine",
        warmup_steps=50,
        bf16=False,
        gradient_checkpointing=False,
        completion_only_loss=True,
        dataset_num_proc=None,
        save_strategy="no",
        logging_steps=25,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    trainer = SFTTrainer(model, args=args, train_dataset=data, processing_class=words, callbacks=callbacks)
    # It prints to the standard output, which is the command's.
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    words.save_pretrained(out)
    model.save_pretrained(out)
