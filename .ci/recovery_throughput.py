"""Tokens a second of LoRA training with torch and peft, to hold graspd's `recovery.tokens_per_second` against.

python3 recovery_throughput.py MODEL_FOLDER ALPACA.json LAYERS STEPS, such as: tiny-llama train.json 2,3,4 10

The same work as graspd's defaults: adapters of rank 256 (at most the smaller side) on all seven projections of the
layers, batches of 32 records in micro-batches of 4 neighbours in length, 256 tokens at most, padding not counted.
"""
import json
import random
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, data, layers, steps = sys.argv[1], sys.argv[2], [int(i) for i in sys.argv[3].split(",")], int(sys.argv[4])
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
chosen = tuple(f"model.layers.{layer}." for layer in layers)
shapes = {name: module.weight.shape for name, module in model.named_modules()
          if name.split(".")[-1] in projections and name.startswith(chosen)}
ranks = {name: min(256, *shape) for name, shape in shapes.items()}
model = get_peft_model(model, LoraConfig(
    r=256, lora_alpha=16, lora_dropout=0.05, target_modules=projections, layers_to_transform=layers,
    rank_pattern={name.replace("model.layers", "layers", 1): rank for name, rank in ranks.items()}))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)


def example(record):
    given = f"\n\n### Input:\n{record['input']}" if record["input"] else ""
    prompt = f"Below is an instruction.\n\n### Instruction:\n{record['instruction']}{given}\n\n### Response:\n"
    head = tokenizer(prompt)["input_ids"]
    tail = tokenizer(record["output"], add_special_tokens=False)["input_ids"] + [model.config.eos_token_id or 0]
    return ([*head, *tail][:256], len(head))


def step(batch):
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


examples = [item for item in map(example, json.load(open(data))) if len(item[0]) > item[1]]
random.Random(0).shuffle(examples)
model.train()
step(examples[:32])
begin, tokens = time.time(), 0
for index in range(1, steps + 1):
    tokens += step([examples[(index * 32 + i) % len(examples)] for i in range(32)])
trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
print(f"{tokens / (time.time() - begin):.0f} tokens/s with torch {torch.__version__}, {torch.get_num_threads()} threads, {trained} parameters train")
