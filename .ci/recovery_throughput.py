"""Tokens a second of LoRA training, graspd against torch + peft on the same model, records, batches and threads.

    python3 .ci/recovery_throughput.py GRASPD MODEL_FOLDER DATASETS_DIR [--steps 6] [--pairs 3] [--threads 2]

Both train adapters of rank 256 (at most the smaller side) on all seven projections of all layers of the dense model, in
batches of 32 Alpaca records, in micro-batches of 4 neighbours in length, 256 tokens at most; padding is not counted. The two
take turns, and the median of the ratios is what counts. DATASETS_DIR is laid out as GRASPD_DATASETS_DIR. Needs an environment
with torch, transformers and peft.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_adapters(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    shapes = {name: module.weight.shape for name, module in model.named_modules() if name.split(".")[-1] in PROJECTIONS}
    ranks = {name.removeprefix("model."): min(256, *shape) for name, shape in shapes.items()}
    settings = LoraConfig(r=256, lora_alpha=16, lora_dropout=0.05, target_modules=PROJECTIONS, rank_pattern=ranks)
    return get_peft_model(model, settings).train()


def example(record, tokenizer, end):
    """Token ids, and how many of them are the prompt."""
    if record["input"].strip():
        intro = "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request."
        given = f"### Instruction:\n{record['instruction']}\n\n### Input:\n{record['input']}"
    else:
        intro = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        given = f"### Instruction:\n{record['instruction']}"
    head = tokenizer(f"{intro}\n\n{given}\n\n### Response:\n")["input_ids"]
    tail = tokenizer(record["output"], add_special_tokens=False)["input_ids"] + [end]
    return ([*head, *tail][:256], len(head))


def step(model, optimizer, batch):
    """Takes a step; returns the tokens it learned from."""
    tokens, targets = 0, sum(len(ids) - first for ids, first in batch)
    batch = sorted(batch, key=lambda item: len(item[0]))
    for start in range(0, len(batch), 4):
        micro = batch[start:start + 4]
        length = max(len(ids) for ids, _ in micro)
        ids = torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in micro])
        mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in micro])
        labels = torch.tensor([[-100] * first + ids[first:] + [-100] * (length - len(ids)) for ids, first in micro])
        model(input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=targets).loss.backward()
        tokens += sum(len(ids) for ids, _ in micro)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return tokens


def torch_rate(model, examples, steps):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    start, tokens = time.monotonic(), 0
    for index in range(steps):
        tokens += step(model, optimizer, [examples[(index * 32 + i) % len(examples)] for i in range(32)])
    return tokens / (time.monotonic() - start)


def graspd_rate(arguments):
    spec = {
        "model": f"file:{arguments.model.resolve().name}",
        "grasp": None,
        "evaluation": None,
        "recovery": {"target": "all_layers", "validation_size": 0, "max_steps": arguments.steps},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "job.json")
        path.write_text(json.dumps(spec))
        command = [arguments.graspd, "compress", "--json", "--spec", path, "--out", f"{folder}/out"]
        command += ["--models-dir", arguments.model.resolve().parent, "--datasets-dir", arguments.datasets_dir]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["recovery"]["tokens_per_second"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("graspd")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("datasets_dir", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = with_adapters(arguments.model)
    records = json.loads((arguments.datasets_dir / "alpaca" / "train.json").read_text())
    examples = [example(record, tokenizer, model.config.eos_token_id or 0) for record in records]
    examples = [item for item in examples if len(item[0]) > item[1]]
    random.Random(0).shuffle(examples)
    torch_rate(model, examples, 1)
    ratios = []
    for _ in range(arguments.pairs):
        ours, theirs = graspd_rate(arguments), torch_rate(model, examples, arguments.steps)
        ratios.append(ours / theirs)
        print(f"graspd {ours:.0f} tokens/s, torch {torch.__version__} with peft {theirs:.0f}: {ratios[-1]:.2f}", flush=True)
    print(f"median of the ratios {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
