#!/usr/bin/env python3
"""Whether a server that works for an hour keeps its size.

    .ci/soak.py target/release/graspd [MINUTES]      (60 by default)

Two workers run short jobs one after another, jobs are listed, read, deleted. Resident memory, descriptors and the
write-ahead log of the server are looked at twice a minute; the last third of the time must not lie above the middle third.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = "http://127.0.0.1:18098"
JOB = {
    "model": "file:tiny-llama",
    "calibration": {"dataset": "file:calibration", "samples": 2, "sequence_length": 32},
    "grasp": {"layers": 3, "retain_ratio": 0.3},
    "evaluation": None,
}
LONGEST_LOG = 64 * 2**20


def ask(path, method="GET", body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as reply:
        text = reply.read()
    return json.loads(text) if text.startswith(b"{") else None


def look(pid, data):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))
    log = data / "graspd.db-wal"
    return resident, len(os.listdir(f"/proc/{pid}/fd")), log.stat().st_size if log.exists() else 0


def work(waiting):
    """Keeps some jobs waiting, and removes those that are over."""
    while len(waiting) < 6:
        waiting.append(ask("/v1/jobs", "POST", JOB)["id"])
    job = ask(f"/v1/jobs/{waiting[0]}")
    if job["status"] in ("succeeded", "failed", "cancelled"):
        assert job["status"] == "succeeded", job
        ask(f"/v1/jobs/{waiting[0]}/report")
        ask(f"/v1/jobs/{waiting.pop(0)}", "DELETE")
        return 1
    ask("/v1/jobs?limit=20")
    time.sleep(0.2)
    return 0


def main():
    binary, minutes = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder) / "data"
        environment = os.environ | {
            "GRASPD_MODELS_DIR": str(ROOT / "tests/fixtures"),
            "GRASPD_DATASETS_DIR": str(ROOT / "tests/fixtures/text"),
            "HF_HUB_OFFLINE": "1",
            "GRASPD_LOG_LEVEL": "warn",
        }
        arguments = ["serve", "--listen", BASE[7:], "--data-dir", str(data), "--slots", "2", "--rate-limit", "0"]
        server = subprocess.Popen([binary, *arguments], env=environment)
        try:
            samples, done = run(server.pid, data, minutes)
        finally:
            server.terminate()
            server.wait()
    sys.exit(judge(samples, done))


def run(pid, data, minutes):
    for _ in range(300):
        try:
            ask("/livez")
            break
        except OSError:
            time.sleep(0.1)
    end, next_look = time.monotonic() + 60 * minutes, 0.0
    samples, waiting, done = [], [], 0
    while time.monotonic() < end:
        done += work(waiting)
        if time.monotonic() >= next_look:
            samples.append(look(pid, data))
            next_look = time.monotonic() + min(30.0, 2 * minutes)
    return samples, done


def judge(samples, done):
    third = len(samples) // 3
    failed = False
    print(f"{done} jobs, {len(samples)} samples")
    for column, (name, unit) in enumerate([("resident memory", "MiB"), ("descriptors", ""), ("write-ahead log", "bytes")]):
        first, middle, last = (
            statistics.median(sample[column] for sample in samples[third * part : third * (part + 1)]) for part in range(3)
        )
        highest = max(sample[column] for sample in samples)
        grows = highest > LONGEST_LOG if column == 2 else last > 1.05 * middle + 2
        failed |= grows
        print(f"{name}: {first:.1f}, {middle:.1f}, {last:.1f} {unit} by thirds, highest {highest:.1f}{' GROWS' if grows else ''}")
    return failed


if __name__ == "__main__":
    main()
