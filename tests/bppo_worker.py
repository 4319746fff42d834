"""One of the processes of a data-parallel BPPO run; test_bppo.py starts them with torchrun.

Writes what this process updates on and the gradient that all of them then have: FOLDER/RANK.pt.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import TrainerCallback

from ruyicam.cloud.bppo import BPPOConfig, BPPOTrainer
from ruyicam.cloud.bppo.start import small_model
from ruyicam.cloud.bppo.tasks.arithmetic import Arithmetic, tokenizer

LOSSES = ("dapo", "grpo")


def reward(completions, answer, **kwargs):
    """By what was said; groups of some prompts are decided, so that processes keep other numbers of rows."""
    return [float(int(a) % 3 == 0 or sum(map(ord, text)) % 2 == 0) for text, a in zip(completions, answer, strict=True)]


def run(folder: Path, loss: str) -> dict:
    found: dict = {}

    class Spy(BPPOTrainer):
        def _pack(self, batch):
            found.setdefault("rows", {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)})
            return super()._pack(batch)

    class Grads(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            found.setdefault("grads", [p.grad.clone() for p in model.parameters()])

    words = tokenizer()
    torch.manual_seed(5)
    model = small_model(words, hidden=32, layers=1)
    args = BPPOConfig(
        str(folder), max_steps=2, num_generations=4, per_device_train_batch_size=2, gradient_accumulation_steps=8,
        max_completion_length=10, learning_rate=1e-3, max_grad_norm=0.0, loss_type=loss, bf16=False,
        gradient_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True, seed=5,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": e.prompt, "answer": e.answer} for e in Arithmetic().examples("train", 32)])
    trainer = Spy(model, reward, args, train_dataset=data, processing_class=words, callbacks=[Grads()])
    trainer.train()
    found["weights"] = list(model.state_dict().values())
    found["rank"] = trainer.accelerator.process_index
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {loss: run(folder, loss) for loss in LOSSES}
    torch.save(found, folder / f"{found['dapo']['rank']}.pt")
