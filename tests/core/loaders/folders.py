"""Small project folders that are right in everything: one per kind of data, to open or to break."""

import gzip
import struct

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

ROWS = 60


def linear(path, inputs, outputs, layer=0, seed=0):
    """A logistic regression of that size, saved as a Sequential would save it."""
    rng = np.random.default_rng(seed)
    save_file(
        {
            f"{layer}.weight": rng.standard_normal((outputs, inputs)).astype(np.float32),
            f"{layer}.bias": np.zeros(outputs, dtype=np.float32),
        },
        path / "model.safetensors",
    )


def write(path, text, name="project.toml"):
    (path / name).write_text(text, "utf-8")


def edit(path, old, new, name="project.toml"):
    """Another text in a text file."""
    text = (path / name).read_text("utf-8")
    assert old in text
    write(path, text.replace(old, new), name)


def table(rng, rows=ROWS):
    """Lines of a table with a name, an amount, a colour with gaps, a place, a weight and a label."""
    colours, regions = ["red", "green", ""], ["north", "south"]
    answers = ["yes", "no"]
    lines = [
        f"c{k},{amount:.3f},{colours[k % 3]},{regions[k % 2]},{1 + k % 4},{answers[k // 2 % 2]}"
        for k, amount in enumerate(rng.normal(50, 9, rows))
    ]
    return "\n".join(["customer,amount,colour,region,times,bought", *lines]) + "\n"


def tables(path):
    """CSV with all that a table may have; inputs are amount, two colours and others, two regions."""
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        write(path, table(rng), f"{split}.csv")
    linear(path, 6, 2)
    write(
        path,
        """
name = "Shop"
class_names = ["no", "yes"]
weight_decay = 0.01

[model]
weights = "model.safetensors"

[data]
train = "train.csv"
test = "test.csv"
target = "bought"
id = "customer"
groups = ["region"]
weights = "times"

[data.columns]
amount = { mean = 50.0, std = 9.0 }
colour = { values = ["green", "red"], other = "column" }
region = { values = ["north", "south"] }
""",
    )
    return path


def arrays(path):
    """Inputs (n, 4), targets and weights of train in .npy files, those of test in one .npz."""
    rng = np.random.default_rng(2)
    labels = np.arange(ROWS) % 3
    np.save(path / "x.npy", rng.standard_normal((ROWS, 4)).astype(np.float32))
    np.save(path / "y.npy", labels)
    np.save(path / "w.npy", np.ones(ROWS))
    np.savez(path / "test.npz", inputs=rng.standard_normal((ROWS, 4)).astype(np.float32), targets=labels)
    write(path, "who,sex\n" + "".join(f"p{k},{'mf'[k % 2]}\n" for k in range(ROWS)), "rows.csv")
    linear(path, 4, 3)
    write(
        path,
        """
[model]
weights = "model.safetensors"

[data]
train = { inputs = "x.npy", targets = "y.npy", weights = "w.npy", rows = "rows.csv" }
test = "test.npz"
""",
    )
    return path


def images(path):
    """Grey PNG and JPEG pictures of 8 x 6 pixels in two classes."""
    rng = np.random.default_rng(3)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (path / split / name).mkdir(parents=True)
            for k in range(6):
                picture = Image.fromarray(rng.integers(0, 256, (8, 6), dtype=np.uint8))
                picture.save(path / split / name / (f"{k}.png" if k % 2 else f"{k}.jpg"))
    linear(path, 48, 2, layer=1)
    write(path, '[model]\nweights = "model.safetensors"\n\n[data]\ntrain = "train"\ntest = "test"\n')
    return path


def idx_bytes(array, code):
    """``array`` in the IDX format."""
    big = array.astype(array.dtype.newbyteorder(">"))
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


def idx(path):
    """Pictures of 5 x 4 pixels, gzipped, and labels, not."""
    rng = np.random.default_rng(4)
    pictures = rng.integers(0, 256, (ROWS, 5, 4), dtype=np.uint8)
    (path / "x-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pictures, 0x08)))
    (path / "y-idx1-ubyte").write_bytes(idx_bytes((np.arange(ROWS) % 2).astype(np.uint8), 0x08))
    linear(path, 20, 2, layer=1)
    write(
        path,
        '[model]\nweights = "model.safetensors"\n\n[data]\n'
        'train = { inputs = "x-idx3-ubyte.gz", targets = "y-idx1-ubyte" }\n',
    )
    return path


KINDS = {"tables": tables, "arrays": arrays, "images": images, "idx": idx}
