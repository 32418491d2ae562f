"""Compares an evaluation with lm-eval's: python3 compare_lmeval.py GOLDEN.json SCORES.json FOLDER_WITH_ANSWERS"""
import json
import pathlib
import sys

golden = json.load(open(sys.argv[1]))
found = json.load(open(sys.argv[2]))["tasks"]
folder = pathlib.Path(sys.argv[3])
worst = 0.0
for task, expected in golden["results"].items():
    for metric in ["acc", "acc_norm"]:
        theirs = expected.get(f"{metric},none")
        ours = found[task].get(metric)
        assert (ours is None) == (theirs is None), (task, metric, ours, theirs)
        assert ours is None or abs(ours - theirs) < 1e-9, (task, metric, ours, theirs)
    answers = [json.loads(line.split(" ", 1)[1]) for line in open(folder / f"dense-{task}.jsonl")][1:]
    for document, (theirs, ours) in enumerate(zip(golden["loglikelihoods"][task], answers)):
        assert len(theirs) == len(ours), (task, document)
        for a, b in zip(theirs, ours):
            worst = max(worst, abs(a - b))
            assert abs(a - b) < 2e-3, (task, document, a, b)
print(f"{len(golden['results'])} tasks agree with lm-eval; log-likelihoods differ by at most {worst:.1e}")
