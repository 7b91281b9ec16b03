#!/usr/bin/env python3
"""What a user would pick instead: the same rows of tokens from the same file by a PyTorch DataLoader, in tokens/s.

The job: one raw file of 16-bit ids, documents end with 50256 -> documents in a shuffled order, end to end, cut every 1,024
tokens -> rows in a shuffled order -> batches of 512 rows: int32 ids and a uint8 loss mask in the consumer's memory. The
file is mapped into memory by NumPy; workers are processes and hand batches over in shared memory, as usual.

usage: token_loaders.py FILE [--workers 2] [--batches 24] [--make TOKENS]
With --make it writes FILE first, when it is not there, and measures nothing.
Prints one JSON line: {"peer", "tokens_per_s", "batches", "workers"}.
"""

import argparse
import json
import os
import time

import numpy as np

SEQ_LEN, BATCH, END, WARMUP = 1024, 512, 50256, 4


def make(path, tokens):
    """Documents of 1 to 2,000 random ids, the same bytes every time."""
    random = np.random.default_rng(1)
    ids = random.integers(0, END, tokens, dtype=np.uint16)
    ends = np.cumsum(random.integers(2, 2001, tokens // 900))
    ids[ends[ends < tokens]] = END
    ids[-1] = END
    ids.tofile(path + ".part")
    os.rename(path + ".part", path)


def loader(args):
    import torch

    ids = np.memmap(args.file, dtype=np.uint16, mode="r")
    ends = np.flatnonzero(ids == END) + 1
    begins = np.concatenate([[0], ends[:-1]])
    order = np.random.default_rng(1).permutation(len(ends))
    lengths = (ends - begins)[order]
    packed = np.cumsum(lengths)

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return int(packed[-1]) // SEQ_LEN

        def __getitem__(self, row):
            out, at, until = np.empty(SEQ_LEN, np.int32), row * SEQ_LEN, (row + 1) * SEQ_LEN
            document, filled = int(np.searchsorted(packed, at, side="right")), 0
            while at < until:
                begin = packed[document] - lengths[document]
                take = min(packed[document], until) - at
                source = begins[order[document]] + at - begin
                out[filled : filled + take] = ids[source : source + take]
                at, filled, document = at + take, filled + take, document + 1
            return torch.from_numpy(out), torch.ones(SEQ_LEN, dtype=torch.uint8)

    return torch.utils.data.DataLoader(Rows(), BATCH, num_workers=args.workers, shuffle=True, drop_last=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--make", type=int, metavar="TOKENS")
    args = parser.parse_args()
    if args.make:
        if not os.path.exists(args.file):
            make(args.file, args.make)
        return
    batches = iter(loader(args))
    for _ in range(WARMUP):
        next(batches)
    start = time.perf_counter()
    for _ in range(args.batches):
        next(batches)
    rate = BATCH * SEQ_LEN * args.batches / (time.perf_counter() - start)
    line = {"peer": "PyTorch DataLoader", "tokens_per_s": round(rate), "batches": args.batches, "workers": args.workers}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
