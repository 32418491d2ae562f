#!/usr/bin/env python3
"""Holds sources and licences of everything that is compiled in against .deny.toml, with nothing but cargo and Python.

cargo-deny checks the same and more; this takes a second, and needs nothing to be built.
"""
import json
import pathlib
import re
import subprocess
import sys
import tomllib

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
OPERATORS = {"(": "(", ")": ")", "/": "or", "OR": "or", "AND": "and"}


def permitted(expression, allowed):
    """Whether the allowed licences are enough for an SPDX expression (https://spdx.dev, annex D), or for one with the slash of old."""
    words = re.findall(r"[()/]|[\w.+-]+(?: WITH [\w.+-]+)?", expression)
    # Nothing but operators and truth values gets here, and Python binds them as SPDX does.
    return bool(words) and eval(" ".join(OPERATORS.get(word, str(word in allowed)) for word in words))


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    rules = tomllib.loads((root / ".deny.toml").read_text())
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features"]
    command += [word for target in rules["graph"]["targets"] for word in ("--filter-platform", target)]
    packages = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    exceptions = {exception["crate"]: exception["allow"] for exception in rules["licenses"]["exceptions"]}
    problems = [f"{name}: has an exception in .deny.toml and is not needed" for name in exceptions.keys() - {package["name"] for package in packages}]
    for package in packages:
        name, licence, source = f"{package['name']} {package['version']}", package["license"], package["source"]
        if source != CRATES_IO and not (source is None and package["name"] == "graspd"):
            problems.append(f"{name}: comes from {source}, not from crates.io")
        allowed = {*rules["licenses"]["allow"], *exceptions.get(package["name"], [])}
        if not permitted(licence or "", allowed):
            problems.append(f"{name}: its licence is {licence}; allow it in .deny.toml, with the reason, or do without it")
    print("\n".join(problems) or f"{len(packages)} packages are from crates.io and under licences that .deny.toml allows")
    sys.exit(bool(problems))


main()
