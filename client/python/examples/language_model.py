#!/usr/bin/env python3
"""A small language model that learns how much of each text it wants to read.

Three texts are served as bytes: program code, speeches, and formal proofs. What counts is code and speech;
proofs are there to be found out. One job serves equal shares to the end (stratified sampling). The other is
led by Aioli: in every round of steps the server probes each text for a few steps, the trainer reports
held-out losses when a batch says that they are due, and the server shifts the shares to what lowered them.
The model is judged on documents that no server ever saw.

    python language_model.py [--quick] [--endpoint URL] [--seeds N]

Prints, for the rounds of the first seed, the weights in the server's log and the shares that were served
between probes; and the loss on those documents, nats per byte, mean and standard deviation over seeds, and
over seeds of the differences.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from serving import ROOT, progress, serving, spread
from torch import Tensor, nn
from torch.nn import functional as F

import mixfeed
from mixfeed.callbacks import GroupLosses

TEXTS = ("code", "proofs", "speech")
TASKS = ("texts/code", "texts/speech")
DOCUMENT, TEST_EVERY, SEQ_LEN, BATCH, WIDTH = 2000, 10, 64, 32, 96
ROUND, SWEEPS, PROBE = 30, 2, 2
# Steps of a round that are probes; the rest is served by the learnt shares.
PROBES = SWEEPS * PROBE * len(TEXTS)


def write(folder: Path) -> tuple[str, dict[str, Tensor]]:
    """Writes documents as `texts/TEXT/NUMBER.txt` below `folder`; the table that declares them, and rows (n,
    64) of bytes of each text's documents for the test, which are not written."""
    kept: dict[str, list[bytes]] = {text: [] for text in TEXTS}
    for text in TEXTS:
        place = folder / "texts" / text
        place.mkdir(parents=True)
        for number, document in enumerate(documents((ROOT / f"demo-data/text/{text}.txt").read_bytes())):
            if number % TEST_EVERY == TEST_EVERY - 1:
                kept[text].append(document)
            else:
                (place / f"{number:04}.txt").write_bytes(document)
    path, cache = (json.dumps(str(folder / name)) for name in ("texts", "cache"))
    table = f'[sources.texts]\nkind = "text"\npath = {path}\ncache = {cache}\n'
    table += 'tokenizer = "bytes"\ngroups = "folder"\n'
    return table, {text: rows(parts) for text, parts in kept.items()}


def documents(text: bytes) -> list[bytes]:
    """Pieces of at least 2,000 bytes, cut at ends of lines."""
    found = [b""]
    for line in text.splitlines(keepends=True):
        if len(found[-1]) >= DOCUMENT:
            found.append(b"")
        found[-1] += line
    return found


def rows(parts: list[bytes]) -> Tensor:
    """All bytes in rows (n, 64); the rest that does not fill a row is left out."""
    whole = torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8).long()
    return whole[: len(whole) // SEQ_LEN * SEQ_LEN].view(-1, SEQ_LEN)


class Model(nn.Module):
    """Logits (n, length, 256) of the next byte by a GRU."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.embed = nn.Embedding(256, WIDTH)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (n, length, 256) after each of the bytes (n, length)."""
        return self.head(self.gru(self.embed(ids))[0])


def losses(model: Model, ids: Tensor) -> Tensor:
    """Loss in nats of every byte but the first of each row (n, 63)."""
    return F.cross_entropy(model(ids[:, :-1]).transpose(1, 2), ids[:, 1:], reduction="none")


@torch.no_grad()
def total(model: Model, ids: Tensor) -> tuple[float, int]:
    """Sum of losses over rows, and the bytes behind it."""
    found = torch.cat([losses(model, part) for part in ids.split(256)])
    return found.sum().item(), found.numel()


def spec(seed: int, steps: int, learn: bool) -> dict[str, Any]:
    """The job; `learn` puts Aioli in charge of the shares."""
    job: dict[str, Any] = {
        "groups": [{"group": f"texts/{text}", "weight": 1.0} for text in TEXTS],
        "seed": seed,
        "global_batch": BATCH,
        "tokens": {"seq_len": SEQ_LEN},
        "held_out": {"fraction": 0.1, "max_records": 6},
        "max_steps": steps,
    }
    if learn:
        params = {"eta": 1.0, "round_steps": ROUND, "sweeps": SWEEPS, "probe_steps": PROBE}
        aioli = {"name": "aioli", "params": params, "options": {"variant": "paper_eg"}}
        job["mixture"] = {"estimator": aioli, "objective": [{"group": task} for task in TASKS]}
    return job


def train(endpoint: str, name: str, seed: int, steps: int, test: dict[str, Tensor]) -> dict[str, Any]:
    """Trains one model to the end of its job: test losses, the server's weights and the shares
    served by round, steps, reports."""
    model = Model(seed)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    served: dict[int, Counter[str]] = {}
    seen = []
    with mixfeed.DataLoader(endpoint, f"{name}-{seed}", spec=spec(seed, steps, name == "aioli")) as loader:
        held_out = {task: held_out_rows(loader, task) for task in TASKS}
        groups = GroupLosses(loader)

        def evaluate() -> dict[str, Any]:
            sums = {task: total(model, ids) for task, ids in held_out.items()}
            return {
                "eval_loss_sum": {task: loss for task, (loss, _) in sums.items()},
                "eval_tokens": {task: count for task, (_, count) in sums.items()},
            }

        if loader.evaluate_first:
            loader.report(None, **evaluate())
        for batch in loader:
            due = loader.due(batch)
            if "eval" in due.before:
                loader.report(batch, before=True, **evaluate())
            each = losses(model, batch.tokens.input_ids.long())
            adam.zero_grad()
            each.mean().backward()
            adam.step()
            groups.step(batch, each)
            if "eval" in due.after:
                loader.report(batch, **evaluate())
            seen.append(batch.step)
            if batch.step % ROUND >= PROBES or name != "aioli":
                counts = Counter(TEXTS[group] for group in batch.groups.tolist())
                served.setdefault(batch.step // ROUND, Counter()).update(counts)
        groups.hand_over()
        loader.flush()
        # Probes are entries of the log too, and the round after the last step may be planned already.
        log = [entry for entry in loader.mixture_log() if entry.kind == "main" and entry.from_step < steps]
        reports = loader.stats()["reports"]
    tested = {
        text: loss / count for text, (loss, count) in ((text, total(model, test[text])) for text in TEXTS)
    }
    return {
        "loss": tested,
        "weights": [[entry.weights[f"texts/{text}"] for text in TEXTS] for entry in log],
        "shares": [shares(counts) for counts in served.values()],
        "steps": seen,
        "reports": reports,
    }


def held_out_rows(loader: mixfeed.Loader, task: str) -> Tensor:
    """Rows of a group that the server keeps out of training batches."""
    return torch.cat([batch.tokens.input_ids.long() for batch in loader.eval_set(task, held_out=True)])


def shares(counts: Counter[str]) -> list[float]:
    """Parts of all rows, in order of the texts."""
    return [counts[text] / sum(counts.values()) for text in TEXTS]


def show(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Prints both tables."""
    names = "".join(f"{text:>9}" for text in TEXTS)
    print(f"Aioli, seed 1: weights in the server's log, and shares served by them\n  round{names}   {names}")
    run = runs["aioli"][0]
    for number, (weights, served) in enumerate(zip(run["weights"], run["shares"], strict=True)):
        columns = ("".join(f"{share:9.3f}" for share in row) for row in (weights, served))
        print(f"  {number:>5}{'   '.join(columns)}")
    print(f"loss on unseen documents, nats per byte, {len(runs['aioli'])} seeds")
    print(f"{'':<16}{'equal shares':<18}{'Aioli':<18}difference")
    by_text = {text: lambda run, text=text: run["loss"][text] for text in TEXTS}
    for name, loss in {
        **by_text,
        "code and speech": lambda run: (run["loss"]["code"] + run["loss"]["speech"]) / 2,
    }.items():
        equal, learnt = ([loss(run) for run in runs[name]] for name in ("stratified", "aioli"))
        apart = [b - a for a, b in zip(equal, learnt, strict=True)]
        print(f"{name:<16}{spread(equal, 3):<18}{spread(learnt, 3):<18}{spread(apart, 3)}", flush=True)


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Runs everything, prints the tables; all runs by name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--endpoint", help="a server with a source `texts` of the three groups; default: start one"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="one seed, two rounds: to see that it runs")
    options = parser.parse_args(argv)
    seeds, steps = (1, 2 * ROUND) if options.quick else (options.seeds, options.steps)
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, Any]]] = {"stratified": [], "aioli": []}
    with tempfile.TemporaryDirectory() as place:
        table, test = write(Path(place))
        with serving(table, options.endpoint) as endpoint:
            for seed in range(1, seeds + 1):
                for name, done in runs.items():
                    done.append(train(endpoint, name, seed, steps, test))
                    progress(f"seed {seed}: {name}: {done[-1]['loss']}")
    show(runs)
    return runs


if __name__ == "__main__":
    main()
