"""Makes statistics.json: figures of numpy and scipy that the Rust statistics are held to.

Run once with numpy 2 and scipy 1.17 from PyPI; the result is committed.
"""

import json

import numpy
from scipy import stats

rng = numpy.random.default_rng(20260822)
cases = []
for count in (2, 3, 5, 10, 31, 47, 200):
    one = numpy.round(rng.lognormal(0.0, 1.0, count), 6)
    two = numpy.round(one * rng.normal(1.1, 0.2, count), 6)
    mean, error = one.mean(), stats.sem(one)
    low, high = stats.t.interval(0.95, count - 1, loc=mean, scale=error)
    paired = stats.ttest_rel(two, one).confidence_interval(0.95)
    cases.append({
        "one": one.tolist(),
        "two": two.tolist(),
        "mean": mean,
        "interval": [low, high],
        "paired": [paired.low, paired.high],
        "quantiles": {str(q): numpy.quantile(one, q) for q in (0.0, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0)},
        "gini": float(numpy.abs(one[:, None] - one[None, :]).mean() / (2 * mean)),
    })
with open("statistics.json", "w") as out:
    json.dump({"origin": f"numpy {numpy.__version__}, scipy {__import__('scipy').__version__}, make.py beside", "cases": cases}, out, indent=1)
    out.write("\n")
