"""How the cost of a training grows with the number and the size of its images: a table, and a plot.

python tests/nightly/growth.py FOLDER OUTPUT --numbers 200 400 800 --sizes 128 192 256

``FOLDER`` is a data set with a split.csv. Where it has fewer normal training images, they are taken again.
Each training is a process of its own, by the command line, with a test on ten images of each kind.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt

BACKBONE = (
    "--model.backbone tf_efficientnet_lite0 --model.backbone_weights package --model.layers [blocks.2,blocks.4] "
    "--model.visualizer false --trainer.accelerator cpu --seed 0"
)


def folder_of(source, number, folder):
    """A data set of so many normal training images, and ten images of each other kind."""
    split = pd.read_csv(source / "split.csv", keep_default_na=False)
    normal = split[(split.split == "train") & (split.label == "normal")]
    rows = [normal.iloc[place % len(normal)].to_dict() for place in range(number)]
    for kind in ("val", "test"):
        for label in (split.label == "normal", split.label != "normal"):
            rows += split[(split.split == kind) & label].head(10).to_dict("records")
    table = pd.DataFrame([{**row, "mask": ""} for row in rows])
    table["source"] = table.image
    table["image"] = [f"{place:05d}{Path(name).suffix}" for place, name in enumerate(table.source)]
    folder.mkdir()
    for name, origin in zip(table.image, table.source, strict=True):
        (folder / name).symlink_to((source / origin).resolve())
    table.drop(columns="source").to_csv(folder / "split.csv", index=False)
    return folder


def measured(source, number, size):
    """Seconds and largest memory, in GB, of one training."""
    with tempfile.TemporaryDirectory() as temporary:
        data = folder_of(source, number, Path(temporary) / "data")
        command = f"train --model anomalib_memd.MEMD {BACKBONE} --model.image_size [{size},{size}] "
        command += f"--data anomalib_memd.Kvasir --data.root {data}"
        program = Path(sys.executable).with_name("anomalib-memd")
        start = time.monotonic()
        process = subprocess.Popen(
            [program, *command.split()], cwd=temporary, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{number} images of {size} px: the training failed ({status}).")
        return time.monotonic() - start, usage.ru_maxrss / 2**20


def main():
    """Measure, and write ``growth.csv`` and ``growth.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--numbers", type=int, nargs="+", default=[200, 400, 800, 1600, 3200])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192, 256, 384])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    wanted = [("images", number, 160) for number in given.numbers] + [("size", 200, size) for size in given.sizes]
    rows = []
    for axis, number, size in wanted:
        seconds, memory = measured(given.folder, number, size)
        rows.append({"axis": axis, "images": number, "size": size, "seconds": seconds, "memory_gb": memory})
        print(rows[-1], flush=True)  # noqa: T201
        pd.DataFrame(rows).to_csv(given.output / "growth.csv", index=False)
    table = pd.DataFrame(rows)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for panel, (axis, title) in zip(axes, {"images": "training images", "size": "side in pixels"}.items(), strict=True):
        part = table[table.axis == axis]
        panel.plot(part[axis], part.seconds, "o-", color="C0")
        panel.set(xlabel=title, ylabel="seconds", ylim=(0, None))
        memory = panel.twinx()
        memory.plot(part[axis], part.memory_gb, "s--", color="C1")
        memory.set(ylabel="memory, GB (dashed)", ylim=(0, None))
    figure.savefig(given.output / "growth.png", dpi=110)


if __name__ == "__main__":
    main()
