#!/usr/bin/env python3
"""What a user would pick instead: the same image job done by peer loaders, in samples per second.

The job: JPEG files in class folders -> decode -> RandomResizedCrop(224, bilinear) -> horizontal flip -> batch of 256 ->
Mixup or CutMix (one of the two per batch, alpha 1.0; DALI and tf.data do Mixup only, tf.data without antialiasing) ->
uint8 batch in the consumer's memory.

usage: image_loaders.py FOLDER [--peers torch-pil,torch-jpeg,dali,tfdata] [--workers 2] [--batch 256] [--batches 24]
Prints one JSON line per peer: {"peer", "samples_per_s", "batches", "workers"}; a peer whose package is missing is
reported as skipped with the reason.
"""

import argparse
import json
import os
import time

SIDE = 224
WARMUP = 4


def measure(name, batches, args):
    batches = iter(batches)
    for _ in range(WARMUP):
        next(batches)
    start = time.perf_counter()
    for _ in range(args.batches):
        next(batches)
    seconds = time.perf_counter() - start
    rate = round(args.batch * args.batches / seconds, 1)
    tell({"peer": name, "samples_per_s": rate, "batches": args.batches, "workers": args.workers})


def tell(result):
    print(json.dumps(result), flush=True)


def files_of(folder):
    """(path, label) of every file in the class folders."""
    found = []
    for label, name in enumerate(sorted(os.listdir(folder))):
        place = os.path.join(folder, name)
        if os.path.isdir(place):
            found += [(os.path.join(place, file), label) for file in sorted(os.listdir(place))]
    return found


def torch_loader(args, decode):
    import torch
    import torchvision
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    augment = v2.Compose([v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip()])

    class Files(torch.utils.data.Dataset):
        def __init__(self):
            self.items = files_of(args.folder)

        def __len__(self):
            return args.batch * (args.batches + 16)

        def __getitem__(self, i):
            path, label = self.items[(i * 7919) % len(self.items)]
            if decode == "pil":
                from PIL import Image

                return v2.functional.pil_to_tensor(augment(Image.open(path).convert("RGB"))), label
            data = torchvision.io.read_file(path)
            return augment(torchvision.io.decode_jpeg(data, mode=torchvision.io.ImageReadMode.RGB)), label

    files = Files()
    classes = max(label for _, label in files.items) + 1
    mix = v2.RandomChoice([v2.MixUp(num_classes=classes), v2.CutMix(num_classes=classes)])

    def collate(rows):
        pixels, labels = torch.utils.data.default_collate(rows)
        pixels, labels = mix(pixels.float(), labels)  # MixUp wants floats
        return pixels.round().to(torch.uint8), labels

    return torch.utils.data.DataLoader(
        files, args.batch, num_workers=args.workers, collate_fn=collate, prefetch_factor=2, shuffle=True
    )


def dali_loader(args):
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=args.batch, num_threads=args.workers, device_id=None, prefetch_queue_depth=2)
    def job():
        jpegs, labels = fn.readers.file(file_root=args.folder, random_shuffle=True)
        pixels = fn.decoders.image_random_crop(jpegs, device="cpu")
        pixels = fn.resize(pixels, size=(SIDE, SIDE), antialias=True)
        pixels = fn.flip(pixels, horizontal=fn.random.coin_flip())
        pairs = fn.batch_permutation()
        other = fn.permute_batch(pixels, indices=pairs)
        share = fn.permute_batch(fn.random.uniform(range=(0, 1)), indices=pairs)
        return fn.cast(pixels * share + other * (1 - share), dtype=types.UINT8), labels

    pipeline = job()
    pipeline.build()
    while True:
        pixels, _ = pipeline.run()
        yield pixels.as_array()


def tfdata_loader(args):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.workers)
    tf.config.threading.set_inter_op_parallelism_threads(args.workers)
    items = files_of(args.folder)
    classes = max(label for _, label in items) + 1
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))

    def load(path, label):
        raw = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(raw),
            tf.zeros([1, 0, 4]),
            area_range=(0.08, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        pixels = tf.image.resize(tf.image.decode_and_crop_jpeg(raw, window, channels=3), [SIDE, SIDE])
        return tf.image.random_flip_left_right(pixels), tf.one_hot(label, classes)

    def mix(pixels, labels):
        share = tf.random.uniform([])
        mixed = share * pixels + (1 - share) * pixels[::-1]
        return tf.cast(tf.round(mixed), tf.uint8), share * labels + (1 - share) * labels[::-1]

    rows = tf.data.Dataset.from_tensor_slices(([path for path, _ in items], [label for _, label in items]))
    rows = rows.shuffle(len(items)).repeat().map(load, num_parallel_calls=args.workers)
    rows = rows.batch(args.batch).map(mix)
    rows = rows.apply(service.distribute("distributed_epoch", dispatcher.target, compression=None)).prefetch(2)
    for pixels, _ in rows:
        yield pixels.numpy()
    del worker  # it had to outlive the loop


PEERS = {
    "torch-pil": lambda args: torch_loader(args, "pil"),
    "torch-jpeg": lambda args: torch_loader(args, "jpeg"),
    "dali": dali_loader,
    "tfdata": tfdata_loader,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=24)
    args = parser.parse_args()
    running = []  # not torn down: tf.data's service waits for ever for its own unfinished epoch
    for name in args.peers.split(","):
        try:
            running.append(PEERS[name](args))
            measure(name, running[-1], args)
        except ImportError as missing:
            tell({"peer": name, "skipped": str(missing)})
    os._exit(0)


if __name__ == "__main__":
    main()
