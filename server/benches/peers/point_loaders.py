#!/usr/bin/env python3
"""What a user would write instead: mixed batches of point scenes by NumPy and SciPy on worker processes, in scenes/s.

The job: folders of arrays (coord f64, color u8, segment i32; about 100,000 points a scene) -> centre in f64, then f32 ->
mirror x, y (p 0.5) -> elastic distortion twice, (0.2, 0.4) and (0.8, 1.6), p 0.95 -> scale per axis 0.9..1.1 -> turn about
z, y, x through the centroid -> centre again and shift by up to half the extent -> contrast, brightness and RGB shift ->
unions of two scenes -> voxels of 0.05, the first point of each -> ragged batch of 8 scenes with offsets, in the consumer's
memory. These are the steps of Mix3D's recipe (Nekrasov et al. 2021) without normals and jitter.

Workers are those of a PyTorch DataLoader where there is one, else of multiprocessing. Elastic fields are read by
RegularGridInterpolator, as in the published pipelines; --map-coordinates takes SciPy's faster way.

usage: point_loaders.py SCENES [--no-elastic] [--map-coordinates] [--workers 2] [--scenes 48]
       point_loaders.py SCENES --make TILES
With --make it writes SCENES/NN/{coord,color,segment}.npy from the tiles of get_points.sh, when they are not there, and
measures nothing. Prints one JSON line: {"peer", "scenes_per_s", "points_per_s", "voxels_per_point", "scenes", "workers",
"elastic"}.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers are the parallelism

import numpy as np  # noqa: E402

BATCH, UNION, WARMUP = 8, 2, 2
ELASTIC = ((0.2, 0.4), (0.8, 1.6))
VOXEL = np.float32(0.05)
MAKE, POINTS, NODES = 24, (80_000, 120_000), 64_000


def elastic(coord, granularity, magnitude, random, map_coordinates):
    """Moves points by a smoothed random field on a grid."""
    from scipy.interpolate import RegularGridInterpolator
    from scipy.ndimage import convolve1d
    from scipy.ndimage import map_coordinates as read

    low = coord.min(axis=0)
    dims = ((coord.max(axis=0) - low) // granularity).astype(int) + 3
    noise = random.standard_normal((*dims, 3), dtype=np.float32)
    box = np.full(3, 1 / 3, np.float32)
    for _ in range(2):
        for axis in range(3):
            noise = convolve1d(noise, box, axis=axis, mode="constant")
    if map_coordinates:
        at = ((coord - low) / granularity + 1).T
        moved = [read(noise[..., axis], at, order=1, output=np.float32) for axis in range(3)]
        return coord + np.stack(moved, axis=1) * np.float32(magnitude)
    nodes = [low[axis] + granularity * np.arange(-1, dims[axis] - 1) for axis in range(3)]
    field = RegularGridInterpolator(nodes, noise, bounds_error=False, fill_value=0)
    return coord + field(coord).astype(np.float32) * np.float32(magnitude)


def turn(angles):
    """About z, then y, then x, counter-clockwise."""
    out = np.eye(3)
    for axis, angle in zip((2, 1, 0), angles):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[one, one] = step[other, other] = np.cos(angle)
        step[one, other], step[other, one] = -np.sin(angle), np.sin(angle)
        out = step @ out
    return out.astype(np.float32)


def centred(coord):
    return coord - coord.mean(axis=0, dtype=np.float64).astype(np.float32)


def scene(folder, random, args):
    """One scene with its own transforms: coordinates f32, colours u8, classes i32."""
    coord, color, segment = (np.load(folder / f"{name}.npy") for name in ("coord", "color", "segment"))
    coord = (coord - coord.mean(axis=0)).astype(np.float32)
    for axis in range(2):
        if random.random() < 0.5:
            coord[:, axis] = coord[:, axis].min() + coord[:, axis].max() - coord[:, axis]
    if args.elastic and random.random() < 0.95:
        for granularity, magnitude in ELASTIC:
            coord = elastic(coord, granularity, magnitude, random, args.map_coordinates)
    coord *= random.uniform(0.9, 1.1, 3).astype(np.float32)
    tilt = np.pi / 24
    coord = centred(coord) @ turn(random.uniform((-np.pi, -tilt, -tilt), (np.pi, tilt, tilt))).T
    low, high = coord.min(axis=0), coord.max(axis=0)
    coord += (low + random.random(3, dtype=np.float32) * (high - low)) / 2
    gain, offset = random.uniform(0.8, 1.2), 255 * random.uniform(-0.2, 0.2)
    color = np.clip(color * np.float32(gain) + np.float32(offset), 0, 255)
    color = np.clip(color + random.integers(-20, 21, 3).astype(np.float32), 0, 255)
    return coord, color.round().astype(np.uint8), segment


def voxels(coord):
    """Numbers of the points that are the first of their voxel, ascending."""
    cell = np.floor(coord / VOXEL).astype(np.int64)
    cell -= cell.min(axis=0)
    _, sides_y, sides_z = cell.max(axis=0) + 1
    _, first = np.unique((cell[:, 0] * sides_y + cell[:, 1]) * sides_z + cell[:, 2], return_index=True)
    first.sort()
    return first


def mixed(scenes):
    """A ragged batch of unions of neighbours: arrays by name, `offset` is where each union ends."""
    rows = []
    for at in range(0, len(scenes), UNION):
        parts = scenes[at : at + UNION]
        whole = [np.concatenate(arrays) for arrays in zip(*parts)]
        whole.append(np.repeat(np.arange(len(parts), dtype=np.uint8), [len(part[0]) for part in parts]))
        first = voxels(whole[0])
        rows.append([array[first] for array in whole])
    batch = dict(zip(("coord", "color", "segment", "scene_id"), map(np.concatenate, zip(*rows))))
    batch["offset"] = np.cumsum([len(row[0]) for row in rows])
    batch["points"] = np.array(sum(len(part[0]) for part in scenes))
    return batch


class Scenes:
    """Scenes of a job, each draw with transforms of its own."""

    def __init__(self, args):
        self.args, self.folders = args, sorted(path.parent for path in args.folder.glob("*/coord.npy"))

    def __len__(self):
        # Workers make batches ahead: the last one that is measured must not find them idle.
        return self.args.scenes + (WARMUP + 2 * self.args.workers) * BATCH

    def __getitem__(self, i):
        return scene(self.folders[(i * 7919) % len(self.folders)], np.random.default_rng([1, i]), self.args)


def torch_batches(scenes):
    import torch

    torch.set_num_threads(1)

    def collate(parts):
        return {name: torch.from_numpy(array) for name, array in mixed(parts).items()}

    return torch.utils.data.DataLoader(scenes, BATCH, num_workers=scenes.args.workers, collate_fn=collate)


def batch_of(scenes_and_number):
    scenes, number = scenes_and_number
    return mixed([scenes[i] for i in range(number * BATCH, (number + 1) * BATCH)])


def process_batches(scenes):
    """The same by multiprocessing; batches travel through a pipe."""
    import multiprocessing

    with multiprocessing.Pool(scenes.args.workers) as pool:
        yield from pool.imap(batch_of, ((scenes, number) for number in range(len(scenes) // BATCH)))


def measure(args):
    scenes = Scenes(args)
    try:
        batches, by = iter(torch_batches(scenes)), "PyTorch DataLoader"
    except ImportError:
        batches, by = process_batches(scenes), "multiprocessing"
    for _ in range(WARMUP):
        next(batches)
    points = kept = 0
    start = time.perf_counter()
    for _ in range(args.scenes // BATCH):
        batch = next(batches)
        points, kept = points + int(batch["points"]), kept + int(batch["offset"][-1])
    seconds = time.perf_counter() - start
    result = {
        "peer": f"NumPy and SciPy, {by}",
        "scenes_per_s": round(args.scenes // BATCH * BATCH / seconds, 2),
        "points_per_s": round(points / seconds),
        "voxels_per_point": round(kept / points, 3),
        "scenes": args.scenes // BATCH * BATCH,
        "workers": args.workers,
        "elastic": args.elastic,
    }
    print(json.dumps(result), flush=True)


def tile(path):
    """Coordinates, colours and classes of a survey tile; without colours its intensity is taken for grey."""
    import laspy

    las = laspy.read(path)
    coord, segment = np.asarray(las.xyz, np.float64), np.asarray(las.classification).astype(np.int32)
    if "red" in las.point_format.dimension_names:
        color = np.stack([las.red, las.green, las.blue], axis=1).astype(np.float64)
    else:
        grey = np.asarray(las.intensity, np.float64)
        color = np.repeat(np.minimum(grey / np.quantile(grey, 0.98), 1)[:, None] * 65535, 3, axis=1)
    color = np.round(color / 257) if color.max() > 255 else color
    return coord, color.astype(np.uint8), segment


def replicated(parts, points, random):
    """At least `points` points: copies of a tile side by side, each mirrored at random."""
    coord, color, segment = parts
    low, extent = coord.min(axis=0), np.ptp(coord, axis=0)
    copies = []
    side = int(np.ceil(np.sqrt(points / len(coord))))
    for number in range(side * side):
        copy = coord - low
        for axis in range(2):
            if random.random() < 0.5:
                copy[:, axis] = extent[axis] - copy[:, axis]
        copies.append(copy + low + extent * (number % side, number // side, 0))
    return np.concatenate(copies), np.tile(color, (side * side, 1)), np.tile(segment, side * side)


def unit(coord):
    """Factor that makes a scene as large as a room, so that the finer of the published grids has NODES nodes."""
    low, high = 1e-6, 1e6
    for _ in range(100):
        middle = np.sqrt(low * high)
        nodes = np.prod(np.floor(np.ptp(coord, axis=0) * middle / ELASTIC[0][0]) + 3)
        low, high = (middle, high) if nodes < NODES else (low, middle)
    return low


def make(args):
    """Scenes of 80,000 to 120,000 points, the same bytes every time: the points nearest to a random one of a tile."""
    tiles = [
        tile(args.make / name)
        for name in ("autzen_trim.laz", "append-bug.laz", "file_with_both_wkt_and_geotiff_vlrs.las")
    ]
    # Almost all of the second one lies in its first 130 m, the rest is a thread of 1 km.
    near = tiles[1][0][:, 0] - tiles[1][0][:, 0].min() < 130
    tiles[1] = tuple(array[near] for array in tiles[1])
    partly = args.folder.with_name(args.folder.name + ".part")
    shutil.rmtree(partly, ignore_errors=True)
    for number in range(MAKE):
        random = np.random.default_rng(number)
        parts, points = tiles[number % len(tiles)], int(random.integers(*POINTS))
        if len(parts[0]) < points:
            parts = replicated(parts, points, random)
        coord = parts[0]
        away = ((coord - coord[random.integers(len(coord))])[:, :2] ** 2).sum(axis=1)
        kept = np.sort(np.argsort(away, kind="stable")[:points])
        coord, color, segment = (array[kept] for array in parts)
        origin = coord.min(axis=0)
        place = partly / f"{number:02}"
        place.mkdir(parents=True)
        np.save(place / "coord.npy", (coord - origin) * unit(coord) + origin)
        np.save(place / "color.npy", color)
        np.save(place / "segment.npy", segment)
    partly.rename(args.folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-elastic", dest="elastic", action="store_false")
    parser.add_argument("--map-coordinates", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--make", type=Path, metavar="TILES")
    args = parser.parse_args()
    if args.make is None:
        measure(args)
    elif not args.folder.exists():
        make(args)


if __name__ == "__main__":
    main()
