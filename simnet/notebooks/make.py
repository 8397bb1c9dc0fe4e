"""Makes first-look.ipynb from first_look.py: cells begin at `# %%`. Run it after a change; outputs are not kept.

    python notebooks/make.py
"""

import json
from pathlib import Path

HERE = Path(__file__).parent


def notebook(source):
    head, *cells = source.split("\n# %%\n")
    title, text = head.strip().strip('"').split("\n", 1)
    # In a notebook the run is named by the environment, and plots stand below their cell.
    text = text.replace("python notebooks/first_look.py out", "SIMNET_RUN=out jupyter lab notebooks/first-look.ipynb")
    text = text.replace("Draws two plots into the folder", "Two plots").replace("first-look.ipynb.", "first_look.py.")
    made = [{"cell_type": "markdown", "id": "about", "metadata": {}, "source": lines(f"# {title}\n{text.rstrip()}")}]
    for number, cell in enumerate(cells, 1):
        made.append({
            "cell_type": "code",
            "execution_count": None,
            "id": f"cell-{number}",
            "metadata": {},
            "outputs": [],
            "source": lines(cell.strip()),
        })
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def lines(text):
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    made = notebook((HERE / "first_look.py").read_text())
    (HERE / "first-look.ipynb").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
