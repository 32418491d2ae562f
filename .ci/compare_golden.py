"""Compares jobs on WikiText-2 with what torch computed: python3 compare_golden.py GOLDEN.json FOLDER_WITH_REPORTS"""
import json
import pathlib
import sys

golden = json.load(open(sys.argv[1]))
folder = pathlib.Path(sys.argv[2])
for name in ["one_shot", "iterative", "magnitude"]:
    report = json.load(open(folder / f"{name}.json"))
    score = report["evaluation"]["perplexity"]["wikitext2"]
    expected = golden["perplexity"]
    assert report["layers"]["redundant"] == golden["layers_num_3"], report["layers"]["redundant"]
    for found, torch in zip(report["layers"]["block_influence"], golden["block_influence"]):
        assert abs(found - torch) < 1e-4, (found, torch)
    assert score["tokens"] == expected["tokens"]
    assert abs(score["before"] / expected["dense"] - 1) < 0.005, score
    assert abs(score["after"] / expected[name] - 1) < 0.005, (name, score, expected[name])
    line = f"{name}: perplexity {score['before']:.3f} -> {score['after']:.3f}, torch {expected['dense']:.3f} -> {expected[name]:.3f}"
    if name in golden:
        kept = {matrix["name"]: set(matrix["kept"]) for matrix in report["matrices"]}
        same = sum(len(kept[matrix] & set(indices)) for matrix, indices in golden[name]["kept"].items())
        total = sum(len(indices) for indices in golden[name]["kept"].values())
        assert same >= 0.99 * total, (name, same, total)
        line += f", {same} of {total} kept indices agree"
    print(line)

best = json.load(open(folder / "best.json"))
paper = json.load(open(folder / "one_shot.json"))
after = {name: report["evaluation"]["perplexity"]["wikitext2"]["after"] for name, report in [("best", best), ("paper", paper)]}
assert best["parameters"]["after"] <= paper["parameters"]["after"], (best["parameters"], paper["parameters"])
assert after["best"] < after["paper"], after
print(f"preset best at the same size: perplexity {after['best']:.3f}, paper {after['paper']:.3f}")
