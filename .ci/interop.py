"""Holds checkpoints of graspd against transformers.

    interop.py make GRASPD WORK     compresses every family, tied and untied, in f32 and bf16, and asks graspd for logits
    interop.py check WORK           loads each checkpoint with the transformers that is imported and compares
    interop.py harness GRASPD WORK  scores a factored and a dense checkpoint with lm-eval, and holds graspd's coqa against it
"""

import json
import math
import os
import pathlib
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures"
FAMILIES = ["llama3-rope", "mistral", "qwen2", "qwen3"]
TOKENS = 40
NEW_TOKENS = 32
# In f32 the sums are the same but for their order.
TOLERANCE_F32 = 1e-4
# In bf16, of 8 bits, a share of the largest logit.
TOLERANCE_BF16 = 2e-2
# Models of random numbers have small logits for their hidden states; torch's own arithmetic in bf16 strays as far on
# them. Where it does, that is the measure: how far the dense checkpoint is from itself in f32, and a quarter more.
STRAYING = 1.25


def tokens(vocabulary):
    """Ids that jump about the vocabulary."""
    return [(index * 37 + 5) % vocabulary for index in range(TOKENS)]


def make_source(source, folder, tied):
    """A copy of a fixture with a tied or an untied head, biases that are not zero, and a tokenizer."""
    folder.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text())
    weights = {}
    for shard in sorted(source.glob("*.safetensors")):
        weights.update(load_file(shard))
    torch.manual_seed(1)
    for name, tensor in weights.items():
        if name.endswith(".bias"):
            weights[name] = (torch.randn(tensor.shape) * 0.5).to(tensor.dtype)
    config["tie_word_embeddings"] = tied
    embedding = weights["model.embed_tokens.weight"]
    if tied:
        weights.pop("lm_head.weight", None)
    elif "lm_head.weight" not in weights:
        weights["lm_head.weight"] = (torch.randn(embedding.shape) * embedding.float().std()).to(embedding.dtype)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if (source / "tokenizer.json").exists():
        for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]:
            (folder / name).write_bytes((source / name).read_bytes())
    else:
        byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# The source\n")


def byte_tokenizer():
    """One token for each byte."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def make(graspd, work):
    for family in ["tiny-llama", *FAMILIES]:
        source = FIXTURES / family if family == "tiny-llama" else FIXTURES / "families" / family
        for tied in [True, False]:
            name = f"{family}-{'tied' if tied else 'untied'}"
            make_source(source, work / "models" / name, tied)
            for dtype in ["f32", "bf16"]:
                make_checkpoint(graspd, work, name, dtype)
    print(f"graspd wrote {len(list(work.glob('made/*')))} pairs of checkpoints")


def make_checkpoint(graspd, work, name, dtype):
    out = work / "made" / f"{name}-{dtype}"
    out.parent.mkdir(exist_ok=True)
    run(
        graspd, "compress", "--models-dir", work / "models", "--datasets-dir", FIXTURES / "text", "--out", out,
        "--model", f"file:{name}", "--calibration-dataset", "file:calibration", "--selection", "first",
        "--samples", "4", "--sequence-length", "64", "--layers", "2", "--retain-ratio", "0.3", "--no-evaluation",
        "--formats", "factored,dense", "--dtype", dtype, "--max-shard-size", "100KB", "--json",
    )
    vocabulary = json.loads((out / "factored" / "config.json").read_text())["vocab_size"]
    ids = ",".join(map(str, tokens(vocabulary)))
    (work / "logits").mkdir(exist_ok=True)
    (work / "logits" / f"{out.name}.json").write_text(run(graspd, "logits", out / "factored", "--tokens", ids))


def check(work):
    import transformers

    # The models are small: threads would only wait for each other.
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for made in sorted((work / "made").iterdir()):
        name, dtype = made.name.rsplit("-", 1)
        expected = torch.tensor(json.loads((work / "logits" / f"{made.name}.json").read_text()))
        worst = check_checkpoint(made, dtype, expected)
        check_bytes(work / "models" / name, made)
        print(f"transformers {transformers.__version__}, {made.name}: logits within {worst:.1e}", flush=True)


def check_checkpoint(made, dtype, expected):
    """Loads both formats and returns how far any two of the three are apart."""
    factored, dense = load(made / "factored", dtype), load(made / "dense", dtype)
    assert type(factored).__name__.startswith("Grasp") and not type(dense).__name__.startswith("Grasp")
    blocks = [type(layer).__name__ for layer in factored.model.layers]
    assert sum(name.startswith("Grasp") for name in blocks) == 2, blocks
    refuses_without_trust(made / "factored")
    tied = factored.config.tie_word_embeddings
    assert (factored.lm_head.weight is factored.model.embed_tokens.weight) == tied
    ids = torch.tensor([tokens(factored.config.vocab_size)])
    ours, product = logits(factored, ids), logits(dense, ids)
    gaps = [gap(ours, product), gap(ours, expected)]
    limits = [TOLERANCE_F32, TOLERANCE_F32]
    if dtype == "bf16":
        share = TOLERANCE_BF16 * expected.abs().max().item()
        limits = [share, max(share, STRAYING * gap(product, logits(load(made / "dense", "f32"), ids)))]
        # What is written in bf16 and computed in f32 is what graspd computes.
        exact = gap(logits(load(made / "factored", "f32"), ids), expected)
        assert exact <= TOLERANCE_F32, f"{made}: computed in f32, factored and graspd differ by {exact}"
    assert all(found <= limit for found, limit in zip(gaps, limits)), (
        f"{made}: factored and dense differ by {gaps[0]}, factored and graspd by {gaps[1]}; allowed are {limits}"
    )
    written = generate(factored, ids)
    if dtype == "f32":
        assert torch.equal(written, generate(dense, ids)), f"{made}: the formats do not generate the same tokens"
    assert torch.equal(written, generate(factored, ids, use_cache=False)) or dtype != "f32"
    check_saved(factored, made, dtype, ids, ours, written)
    check_base_model(made, dtype, ids, factored)
    return max(gaps)


def load(folder, dtype, **options):
    from transformers import AutoModelForCausalLM

    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    trust = folder.name != "dense"
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=kind, trust_remote_code=trust, output_loading_info=True, **options
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model.eval()


def refuses_without_trust(folder):
    from transformers import AutoModelForCausalLM

    try:
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code" in str(error), error
        return
    raise AssertionError(f"{folder} loads without trust_remote_code")


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits[0].float()


def gap(left, right):
    return (left - right).abs().max().item()


def generate(model, ids, **options):
    mask = torch.ones_like(ids)
    with torch.no_grad():
        return model.generate(
            ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False,
            pad_token_id=0, **options,
        )


def check_saved(model, made, dtype, ids, before, written):
    """What is saved and loaded again says the same."""
    folder = made.parent.parent / "saved" / made.name / "factored"
    model.save_pretrained(folder)
    again = load(folder, dtype)
    assert again.config.truncation_ranks == model.config.truncation_ranks
    assert torch.equal(logits(again, ids), before) and torch.equal(generate(again, ids), written)


def check_base_model(made, dtype, ids, causal):
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(made / "factored", trust_remote_code=True)
    assert len(config.truncation_ranks) == 14 and config.model_type.startswith("grasp_")
    base = AutoModel.from_pretrained(made / "factored", dtype=causal.dtype, trust_remote_code=True).eval()
    with torch.no_grad():
        assert torch.equal(base(ids).last_hidden_state, causal.model(ids).last_hidden_state)


def check_bytes(source, made):
    """The files are as much smaller as the report says."""
    report = json.loads((made / "report.json").read_text())
    size = lambda folder: sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert report["bytes"] == {"before": size(source), "after": size(made / "factored")}, report["bytes"]
    for checkpoint in report["checkpoints"]:
        assert checkpoint["bytes"] == size(made / checkpoint["folder"]), checkpoint
        assert (made / checkpoint["folder"] / "model.safetensors.index.json").exists()
    saved = sum(matrix["parameters_before"] - matrix["parameters_after"] for matrix in report["matrices"])
    assert saved > 0 and report["parameters"]["before"] - report["parameters"]["after"] == saved
    assert "license: apache-2.0" in (made / "factored" / "README.md").read_text()


def harness(graspd, work):
    check_choices(work)
    check_coqa(graspd, work)


def check_choices(work):
    """lm-eval gives the factored model the log-likelihoods of the dense one."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    documents = [{"question": f"The {word}", "choices": [" was a", " of the"], "answer": 0} for word in ["city", "war"]]
    questions = work / "questions.jsonl"
    questions.write_text("".join(json.dumps(document) + "\n" for document in documents))
    task = {
        "task": "interop", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(questions)}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}", "doc_to_target": "answer", "metric_list": [{"metric": "acc"}],
    }
    scores = []
    for format in ["factored", "dense"]:
        folder = work / "made" / "tiny-llama-tied-f32" / format
        model = HFLM(
            pretrained=str(folder), dtype="float32", trust_remote_code=True, device="cpu", batch_size=2
        )
        tasks = {"interop": ConfigurableTask(config=task)}
        results = lm_eval.evaluate(lm=model, task_dict=tasks, limit=2, log_samples=True)
        samples = results["samples"]["interop"]
        scores.append([float(choice[0][0]) for sample in samples for choice in sample["resps"]])
    assert len(scores[0]) == 4 and all(map(math.isfinite, scores[0])), scores
    assert all(abs(ours - product) < 1e-3 for ours, product in zip(*scores)), scores
    print("lm-eval scores both formats alike:", [round(score, 3) for score in scores[0]])


def check_coqa(graspd, work):
    """graspd gives the sample model's answers to coqa that lm-eval does, and its scores, over records of our own."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.utils import load_yaml_config

    scores = json.loads(run(
        graspd, "eval", "--models-dir", FIXTURES, "--model", "file:tiny-llama", "--datasets-dir", FIXTURES / "tasks",
        "--tasks", "coqa", "--work", work / "answers", "--json",
    ))["tasks"]["coqa"]
    lines = (work / "answers" / "dense-coqa.jsonl").read_text().splitlines()[1:]
    answers = [json.loads(line.split(" ", 1)[1]) for line in lines]
    # lm-eval's own task file and functions, with only the data set replaced.
    source = pathlib.Path(lm_eval.__file__).parent / "tasks" / "coqa" / "default.yaml"
    task = load_yaml_config(str(source), mode="full")
    records = FIXTURES / "tasks" / "coqa" / "validation.jsonl"
    task.update(dataset_path="json", dataset_kwargs={"data_files": {"validation": str(records)}}, training_split=None)
    torch.set_num_threads(1)
    model = HFLM(pretrained=str(FIXTURES / "tiny-llama"), dtype="float32", device="cpu", batch_size=1)
    found = lm_eval.evaluate(lm=model, task_dict={"coqa": ConfigurableTask(config=task)}, log_samples=True)
    assert [sample["resps"][0][0] for sample in found["samples"]["coqa"]] == answers, "the answers differ"
    for metric in ["em", "em_stderr", "f1", "f1_stderr"]:
        theirs = found["results"]["coqa"][f"{metric},none"]
        assert abs(scores[metric] - theirs) < 1e-9, (metric, scores[metric], theirs)
    print(f"coqa has lm-eval's answers and scores: em {scores['em']:.4f}, f1 {scores['f1']:.4f}")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    command, *arguments = sys.argv[1:]
    # The classes of checkpoints are copied below this folder before they are imported.
    os.environ["HF_HOME"] = os.path.join(arguments[-1], "huggingface")
    {"make": make, "check": check, "harness": harness}[command](*map(pathlib.Path, arguments))
