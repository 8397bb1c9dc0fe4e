"""A first look at the tables of a run, with pandas.

    simnet run scenarios/steady-1000.toml --out out
    pip install pandas pyarrow matplotlib
    python notebooks/first_look.py out

Draws two plots into the folder: how long users waited for the first token, by region, and how jobs went over time.
The same as first-look.ipynb. What the columns mean is in docs/tables.md and in the run's schema.json.
"""

# %%
import json
import os
import sys
from pathlib import Path

import matplotlib

if __name__ == "__main__" and "ipykernel" not in sys.modules:
    matplotlib.use("Agg")  # a file, not a window
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

IN_NOTEBOOK = "ipykernel" in sys.modules
RUN = Path(os.environ.get("SIMNET_RUN", "out") if IN_NOTEBOOK or len(sys.argv) < 2 else sys.argv[1])

# %%
# The figures of the run, ready made.
result = json.loads((RUN / "result.json").read_text())
print(result["about"]["scenario"], "seed", result["about"]["seed"], "trace", result["ending"]["trace"][:16])
print(pd.Series(result["figures"]).to_string())

# %%
# Columns with gaps stay whole numbers with this backend; without it pandas makes them floating point.
def table(name):
    return pd.read_parquet(RUN / f"{name}.parquet", dtype_backend="numpy_nullable")


jobs = table("jobs")
hosts = table("hosts").set_index("host")
samples = table("samples")
jobs = jobs.join(hosts["region"], on="consumer").join(hosts["adversary"], on="consumer")
jobs = jobs[jobs["adversary"].isna() & (jobs["submitted_us"] >= result["summary"]["warm_up_us"])]

# %%
# `weight` says how many jobs a row stands for: more than one only in runs of millions of jobs.
def distribution(values, weights):
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return values[order] / 1e6, 100 * share / share[-1]


waited = jobs.dropna(subset=["first_token_us"])
busiest = waited.groupby("region")["weight"].sum().nlargest(5).index
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for style, region in zip(["-", "--", ":", "-.", (0, (5, 1))], busiest):
    rows = waited[waited["region"] == region]
    x, y = distribution(rows["first_token_us"].to_numpy("float64"), rows["weight"].to_numpy("float64"))
    axes.step(x, y, where="post", label=region, linestyle=style)
axes.set(xscale="log", xlabel="time to first token [s]", ylabel="jobs within that time [%]")
axes.grid(axis="y", alpha=0.3)
axes.legend(frameon=False)
if not IN_NOTEBOOK:
    figure.savefig(RUN / "first-token-by-region.png", dpi=150)

# %%
seconds = samples["at_us"].to_numpy("float64") / 1e6
interval = np.diff(seconds, prepend=0)
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for style, column in zip(["-", "--", ":"], ["submitted", "finished", "failed"]):
    axes.plot(seconds, samples[column].to_numpy("float64") / interval, style, label=column)
axes.set(xlabel="virtual time [s]", ylabel="jobs a second", ylim=(0, None))
axes.grid(axis="y", alpha=0.3)
axes.legend(frameon=False)
if not IN_NOTEBOOK:
    figure.savefig(RUN / "jobs-over-time.png", dpi=150)
