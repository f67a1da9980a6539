"""Tiny data sets in the layouts of their authors: one function writes each, `LAYOUTS` says what is to be found."""

import json
import pickle
import struct

import numpy as np
from PIL import Image


def paint(path, level, size=(4, 4)):
    """A picture of one grey level, so that a mixed-up entry is seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path, **({"quality": 100} if path.suffix != ".png" else {}))


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


# ---- layouts: each writer follows the description of the data set's authors -------------------------------------------


def write_pets(root):
    rows = [
        ("american_bulldog_7", 2, 2, 1),
        ("Abyssinian_201", 1, 1, 1),
        ("Abyssinian_3", 1, 1, 1),
        ("basset_hound_9", 4, 2, 3),
    ]
    for i, (name, *_) in enumerate(rows):
        paint(root / "images" / f"{name}.jpg", 40 * i)
    write(root / "annotations" / "test.txt", *(" ".join(map(str, row)) for row in rows))


def write_food(root):
    write(root / "meta" / "classes.txt", "apple_pie", "baby_back_ribs")
    write(root / "meta" / "test.txt", "baby_back_ribs/2", "apple_pie/1")
    paint(root / "images" / "baby_back_ribs" / "2.jpg", 0)
    paint(root / "images" / "apple_pie" / "1.jpg", 40)
    paint(root / "images" / "apple_pie" / "9.jpg", 200)  # of the other split


def write_aircraft(root):
    write(root / "data" / "variants.txt", "707-320", "F-16A/B", "Spitfire MK IX")
    write(root / "data" / "images_variant_test.txt", "0000007 Spitfire MK IX", "0000003 F-16A/B")
    paint(root / "data" / "images" / "0000007.jpg", 0)
    paint(root / "data" / "images" / "0000003.jpg", 40)


def write_flowers(root):
    from scipy.io import savemat

    for number in (1, 2, 3):
        paint(root / "jpg" / f"image_{number:05d}.jpg", 40 * number)
    savemat(root / "imagelabels.mat", {"labels": np.array([[77, 1, 102]], np.uint8)})
    savemat(root / "setid.mat", {"trnid": [[2]], "valid": [[2]], "tstid": np.array([[3, 1]], np.uint16)})


def write_imagenet(root):
    paint(root / "val" / "n01443537" / "ILSVRC2012_val_00000002.JPEG", 0)
    paint(root / "val" / "n04008634" / "ILSVRC2012_val_00000001.JPEG", 40)


def write_imagenet_v2(root):
    for i, folder in enumerate(("10", "2", "0")):
        paint(root / folder / "a.jpeg", 40 * i)


def write_imagenet_a(root):
    paint(root / "n01498041" / "0.001_x.jpg", 0)
    paint(root / "n09472597" / "0.002_x.jpg", 40)
    write(root / "README.txt", "not a picture")


def write_objectnet(root):
    labels = {"binder_closed": "Binder (closed)", "alarm_clock": "Alarm clock", "air_freshener": "Air freshener"}
    for i, folder in enumerate(labels):
        paint(root / "images" / folder / "f00d.png", 255 if i else 0, size=(8, 6))
    (root / "mappings").mkdir()
    clocks = "analog clock; digital clock"
    for name, content in {
        "folder_to_objectnet_label.json": labels,
        "objectnet_to_imagenet_1k.json": {"Alarm clock": clocks, "Binder (closed)": "binder, ring-binder"},
        "pytorch_to_imagenet_2012_id.json": {"409": 2, "446": 0, "530": 1},
    }.items():
        (root / "mappings" / name).write_text(json.dumps(content))
    write(root / "mappings" / "imagenet_to_label_2012_v2", "binder, ring-binder", "digital clock", "analog clock")


def write_stl10(root):
    images = np.zeros((2, 96, 96, 3), np.uint8)
    images[0, 48, :, 0], images[1, 48, 48] = 40, 80
    images[0, 5, 90, 1] = 255  # row 5, column 90: orientation is seen
    root.mkdir(exist_ok=True)
    columns_first = images.transpose(0, 3, 2, 1)  # planes, columns, rows, as the files are
    (root / "test_X.bin").write_bytes(np.ascontiguousarray(columns_first).tobytes())
    (root / "test_y.bin").write_bytes(bytes([10, 1]))
    write(root / "class_names.txt", *"airplane bird car cat deer dog horse monkey ship truck".split())
    return images


def cifar(n=3):
    images = np.zeros((n, 32, 32, 3), np.uint8)
    for i in range(n):
        images[i, 16, 16] = 40 * i
    images[0, 1, 30, 2] = 255
    return images, np.arange(n)[::-1] * 4


def write_cifar_binary(root):
    images, labels = cifar()
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    root.mkdir(exist_ok=True)
    (root / "test_batch.bin").write_bytes(
        b"".join(bytes([k]) + p.tobytes() for k, p in zip(labels, planes, strict=True))
    )


def write_cifar_python(root):
    images, labels = cifar()
    root.mkdir(exist_ok=True)
    batch = {"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), "labels": labels.tolist()}
    (root / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))


def idx(array):
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(root):
    images = np.zeros((3, 28, 28), np.uint8)
    images[:, 14, 14] = [0, 40, 80]
    root.mkdir(exist_ok=True)
    (root / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([7, 2, 1], np.uint8)))


LAYOUTS = {
    "pets": (
        write_pets,
        "oxford-iiit-pet",
        [
            ("images/american_bulldog_7.jpg", "american_bulldog", 0),
            ("images/Abyssinian_201.jpg", "Abyssinian", 40),
            ("images/Abyssinian_3.jpg", "Abyssinian", 80),
            ("images/basset_hound_9.jpg", "basset_hound", 120),
        ],
    ),
    "food": (
        write_food,
        "food-101",
        [("images/baby_back_ribs/2.jpg", "baby_back_ribs", 0), ("images/apple_pie/1.jpg", "apple_pie", 40)],
    ),
    "aircraft": (
        write_aircraft,
        "fgvc-aircraft-2013b",
        [("data/images/0000007.jpg", "Spitfire MK IX", 0), ("data/images/0000003.jpg", "F-16A/B", 40)],
    ),
    "flowers": (
        write_flowers,
        "flowers-102",
        [("jpg/image_00003.jpg", "blackberry lily", 120), ("jpg/image_00001.jpg", "passion flower", 40)],
    ),
    "imagenet": (
        write_imagenet,
        "imagenet",
        [
            ("val/n01443537/ILSVRC2012_val_00000002.JPEG", "goldfish", 0),
            ("val/n04008634/ILSVRC2012_val_00000001.JPEG", "missile", 40),
        ],
    ),
    "imagenet-v2": (
        write_imagenet_v2,
        "imagenetv2-matched-frequency-format-val",
        [("0/a.jpeg", "tench", 80), ("2/a.jpeg", "great white shark", 40), ("10/a.jpeg", "brambling", 0)],
    ),
    "imagenet-a": (
        write_imagenet_a,
        "imagenet-a",
        [("n01498041/0.001_x.jpg", "stingray", 0), ("n09472597/0.002_x.jpg", "volcano", 40)],
    ),
    "objectnet": (
        write_objectnet,
        "objectnet-1.0",
        [("images/alarm_clock/f00d.png", "alarm_clock", 255), ("images/binder_closed/f00d.png", "binder_closed", 0)],
    ),
    "stl10": (write_stl10, "stl10_binary", [("test/0", "truck", 40), ("test/1", "airplane", 80)]),
    "mnist": (write_mnist, "MNIST/raw", [("test/0", "7", 0), ("test/1", "2", 40), ("test/2", "1", 80)]),
    "fashion-mnist": (
        write_mnist,
        "FashionMNIST/raw",
        [("test/0", "Sneaker", 0), ("test/1", "Pullover", 40), ("test/2", "Trouser", 80)],
    ),
    "cifar10": (
        write_cifar_binary,
        "cifar-10-batches-bin",
        [("test/0", "ship", 0), ("test/1", "deer", 40), ("test/2", "airplane", 80)],
    ),
}
