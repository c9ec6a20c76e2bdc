"""The picture in the README: the mean accuracy over the tasks seen, with a band over seeds.

python run.py -m stream=split_digits strategy=naive,simplecil,olora seed=0,1,2 trainer.epochs=1
python benchmarks/readme_picture.py runs/sweeps/<the folder of that sweep>
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cl.compare import compare, to_markdown
from cl.report import plots

PICTURE = Path(__file__).parent.parent / "docs" / "split_digits.png"


def main() -> None:
    """Draw the picture, and print what it was drawn from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs or of a sweep")
    parser.add_argument("--out", type=Path, default=PICTURE)
    given = parser.parse_args()
    compared = compare(given.runs)
    means = {
        f"{group.name} (n = {len(group.runs)})": np.stack([run.means() for run in group.runs])
        for group in compared.groups
    }
    figure = plots.bands(means, "mean accuracy over the tasks seen (%)")
    figure.set_size_inches(7.2, 3.6)
    run = compared.groups[0].runs[0].summary
    about = (
        f"{run['names']['stream']}, {run['names']['backbone']}; shaded: ± one standard deviation"
    )
    figure.axes[0].set_title(about, fontsize=9, color="#616e7c")
    figure.savefig(given.out, dpi=110, metadata={"Software": None})
    print(to_markdown(compared))
    for group in compared.groups:
        for each in group.runs:
            print(group.name, each.summary["seed"], each.summary["date"], each.summary["hardware"])


if __name__ == "__main__":
    main()
