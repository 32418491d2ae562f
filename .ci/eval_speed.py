"""How long an evaluation takes, against lm-eval on the same machine, tasks, documents and threads.

    python3 .ci/eval_speed.py GRASPD MODEL_FOLDER DATASETS_DIR [--limit 50] [--threads 2] [--num-fewshot 0]

DATASETS_DIR is laid out as GRASPD_DATASETS_DIR: TASK/SPLIT.jsonl, with the field names of the originals. Needs an
environment with torch, transformers, datasets and lm-eval 0.4.9. lm-eval reads its own task files, with only the data set
replaced by the local files; its time is that of `simple_evaluate` with the model in memory already, graspd's that of
the whole process. Accuracies are compared too: a run that disagrees fails.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

TASKS = {
    "openbookqa": "openbookqa/openbookqa.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "winogrande": "winogrande/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "mathqa": "mathqa/mathqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
}
SPLITS = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
# What the local files replace, and the tags, which name tasks that are not there.
REPLACED = {"task", "tag", "dataset_path", "dataset_name", *SPLITS.values()}


def kept_lines(path):
    """A task file, and what it includes, without what the local files replace."""
    kept, skipping = [], False
    for line in path.read_text().splitlines():
        if line.startswith("include:"):
            kept += kept_lines(path.parent / line.split(":", 1)[1].strip())
        elif line and not line.startswith((" ", "-")):
            skipping = line.split(":")[0] in REPLACED
        if not skipping and not line.startswith("include:"):
            kept.append(line)
    return kept


def local_task(task, tasks_folder, datasets_dir, folder):
    """Writes the task's own file with local files for its data, beside the functions it names; returns the task's name."""
    source = tasks_folder / TASKS[task]
    files = {path.stem: path.resolve() for path in sorted((datasets_dir / task).glob("*.json*"))}
    head = [f"task: local_{task}", "dataset_path: json", "dataset_kwargs:", "  data_files:"]
    head += [f"    {split}: {path}" for split, path in files.items()]
    head += [f"{SPLITS[split]}: {split}" for split in files]
    if set(files) == {"test"}:
        head.append("fewshot_split: test")
    (folder / f"{task}.yaml").write_text("\n".join(head + kept_lines(source)) + "\n")
    for functions in source.parent.glob("*.py"):
        (folder / functions.name).write_text(functions.read_text())
    return f"local_{task}"


def lm_eval_scores(arguments, folder):
    """Seconds, and accuracies by task."""
    import torch

    torch.set_num_threads(arguments.threads)
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # It prints the files of tasks relative to its own folder, which ours are not in.
    relative = pathlib.Path.relative_to

    def relative_or_whole(path, *other):
        try:
            return relative(path, *other)
        except ValueError:
            return path

    pathlib.Path.relative_to = relative_or_whole
    tasks_folder = pathlib.Path(lm_eval.__file__).parent / "tasks"
    names = []
    for task in TASKS:
        # Functions of different tasks are in files of the same name.
        (folder / task).mkdir()
        names.append(local_task(task, tasks_folder, arguments.datasets_dir, folder / task))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    model = HFLM(pretrained=str(arguments.model), dtype="float32", batch_size=8, device="cpu")
    start = time.monotonic()
    found = lm_eval.simple_evaluate(
        model=model, tasks=names, num_fewshot=arguments.num_fewshot, limit=arguments.limit, task_manager=manager, bootstrap_iters=0
    )
    seconds = time.monotonic() - start
    return seconds, {task: found["results"][f"local_{task}"] for task in TASKS}


def graspd_scores(arguments):
    """Seconds, and accuracies by task."""
    model = arguments.model.resolve()
    command = [arguments.graspd, "eval", "--json", "--models-dir", model.parent, "--model", f"file:{model.name}"]
    command += ["--datasets-dir", arguments.datasets_dir, "--tasks", ",".join(TASKS), "--limit", str(arguments.limit)]
    command += ["--num-fewshot", str(arguments.num_fewshot)]
    start = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)}, stdout=subprocess.PIPE, check=True
    )
    return time.monotonic() - start, json.loads(done.stdout)["tasks"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("graspd")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("datasets_dir", type=pathlib.Path)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--num-fewshot", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.update({"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"})
    seconds, scores = graspd_scores(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
        theirs, expected = lm_eval_scores(arguments, pathlib.Path(folder))
    different = 0
    for task in TASKS:
        for metric in ["acc", "acc_norm"]:
            ours, other = scores[task].get(metric), expected[task].get(f"{metric},none")
            print(f"{task:14} {metric:9} graspd {ours}  lm-eval {other}")
            # A tie may fall either way at the precision of float32: one document.
            different += other is not None and abs(ours - other) > 1.01 / arguments.limit
    print(f"graspd {seconds:.1f} s, lm-eval {theirs:.1f} s: {theirs / seconds:.2f} times as fast")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
