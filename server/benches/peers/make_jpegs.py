"""Cuts 500x375 JPEG crops (quality 92, 4:2:0, as in ImageNet) out of large photographs; the class is the photograph.

train = left 80 % of each photograph, val = right 20 % (no pixel shared). Crops smaller than MIN_KB are drawn again (flat
sky, blur), so that decoding costs about what ImageNet costs (its mean is about 110 KB; here about 57 KB).

usage: make_jpegs.py SRC OUT TRAIN_PER_PHOTO VAL_PER_PHOTO
"""

import io
import random
import sys
from pathlib import Path

from PIL import Image

MIN_KB = 45
TRIES = 12
SIZE = (500, 375)


def crop(image, left, right, draws):
    """One crop between two columns: the first draw of enough detail, else the richest of TRIES."""
    best = b""
    for _ in range(TRIES):
        largest = min(4.0, (right - left - 1) / SIZE[0], (image.height - 1) / SIZE[1])
        scale = draws.uniform(min(1.0, largest), largest)
        w, h = int(SIZE[0] * scale), int(SIZE[1] * scale)
        x = draws.randint(left, right - w)
        y = draws.randint(0, image.height - h)
        out = io.BytesIO()
        image.crop((x, y, x + w, y + h)).resize(SIZE, Image.LANCZOS).save(out, "JPEG", quality=92)
        if len(out.getvalue()) > len(best):
            best = out.getvalue()
        if len(best) >= MIN_KB * 1000:
            break
    return best


def crops(image, left, right, count, draws):
    """`count` crops, or None when the photograph is flat."""
    kept = []
    for i in range(count):
        kept.append(crop(image, left, right, draws))
        if i == 5 and max(map(len, kept)) < MIN_KB * 600:
            return None
    return kept


def main(src, out, train, val):
    Image.MAX_IMAGE_PIXELS = None
    draws = random.Random(0)
    total = 0
    for path in sorted(p for p in Path(src).rglob("*") if p.suffix in (".jpg", ".png")):
        if path.is_symlink() or path.stat().st_size < 300_000:
            continue
        image = Image.open(path).convert("RGB")
        if image.width < 1200 or image.height < 800:
            continue
        border = int(image.width * 0.8)
        both = [crops(image, 0, border, train, draws)]
        if both[0]:
            both.append(crops(image, border, image.width, val, draws))
        if not all(both):
            continue
        name = path.stem.split("_by_")[0].lower()
        for split, kept in zip(("train", "val"), both):
            folder = Path(out, split, name)
            folder.mkdir(parents=True)
            for i, data in enumerate(kept):
                (folder / f"{i:04d}.jpg").write_bytes(data)
                total += 1
    print(f"{total} pictures in {out}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
