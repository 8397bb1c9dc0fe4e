#!/usr/bin/env python3
"""Runs a sweep on a Ray cluster: one task for each run, one core each, tried again when a machine is lost.

    pip install ray
    python3 simnet/scripts/sweep_ray.py GRID.toml --out FOLDER [--simnet PATH] [--address auto]

The program and the grid must be at the same path on every machine, and FOLDER on storage that all share. Runs that
are there already are not made again. The hashes are those of `simnet sweep`: a run does not know where it runs.
"""
import argparse, csv, json, pathlib, subprocess
import ray

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("grid")
options.add_argument("--out", default="out/sweep")
options.add_argument("--simnet", default="simnet")
options.add_argument("--address", default=None, help="of a running cluster; without it, one is started here")
options = options.parse_args()


@ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[OSError])
def run(simnet, cell):
    kept = pathlib.Path(cell["folder"], "run.json")
    if kept.exists() and not json.loads(kept.read_text())["interrupted"]:
        return cell["index"], json.loads(kept.read_text())
    command = [simnet, "run", cell["scenario"], "--seed", str(cell["seed"]), "--json",
               "--out", cell["folder"], "--variant", cell["variant"]]
    for key, value in cell["set"]:
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout.strip():
        # A machine that loses its process is worth another try; a scenario that is wrong is not.
        raise (OSError if done.returncode < 0 else RuntimeError)(done.stderr.strip())
    result = json.loads(done.stdout)
    if result["interrupted"]:
        raise OSError("interrupted")
    kept.write_text(done.stdout.strip())
    return cell["index"], result


simnet = subprocess.run(["which", options.simnet], capture_output=True, text=True, check=True).stdout.strip()
listed = [simnet, "sweep", options.grid, "--out", str(pathlib.Path(options.out).absolute()), "--list"]
cells = [json.loads(line) for line in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()]
ray.init(address=options.address, include_dashboard=False, log_to_driver=False)
results = dict(ray.get([run.remote(simnet, cell) for cell in cells]))
with open(pathlib.Path(options.out, "summary-ray.csv"), "w", newline="") as file:
    out = csv.writer(file)
    out.writerow(["index", "scenario", "variant", "seed", "tier", "trace", "result", "violation"])
    for index, it in sorted(results.items()):
        violation = (it["violation"] or {}).get("invariant", "")
        out.writerow([index] + [it[key] for key in ("scenario", "variant", "seed", "tier", "trace", "result")] + [violation])
print(f"{len(results)} runs; summary in {options.out}/summary-ray.csv")
