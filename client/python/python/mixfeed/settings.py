"""What a loader is told, checked and put into the words of the client."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixfeed.errors import Argument


def endpoint_list(endpoints: str | Sequence[str]) -> list[str]:
    """Endpoints in order of preference."""
    listed = [endpoints] if isinstance(endpoints, str) else list(endpoints)
    if not listed:
        raise Argument("`endpoints`: expected at least one")
    return listed


def read_spec(spec: Mapping[str, Any] | str | os.PathLike[str] | None, job: str) -> str | None:
    """A job's spec as JSON, in the shape of `[jobs.NAME]` of the server's configuration.

    `spec`: that table as a mapping; or a TOML or JSON file that holds it, by itself or as `jobs.NAME`.
    """
    if spec is None:
        return None
    if not isinstance(spec, Mapping):
        path = Path(spec)
        try:
            text = path.read_text()
            spec = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (OSError, ValueError) as error:
            raise Argument(f"`spec`: `{path}`: {error}") from error
        if isinstance(spec.get("jobs"), dict):
            if job not in spec["jobs"]:
                raise Argument(f"`spec`: `{path}` has no job `{job}`, but {', '.join(spec['jobs'])}")
            spec = spec["jobs"][job]
    try:
        return json.dumps(spec, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Argument(f"`spec`: {error}") from error


def slice_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size: as given, else of torch.distributed when it is initialised, else of RANK and
    WORLD_SIZE,
    else 0 of 1."""
    if (rank is None) != (world_size is None):
        raise Argument("`rank`, `world_size`: expected both or none of them")
    if rank is not None and world_size is not None:
        found = rank, world_size
    else:
        found = _distributed() or _environment()
    if not 0 <= found[0] < found[1]:
        raise Argument(f"`rank`: is {found[0]}, want 0..{found[1]}")
    return found


def _distributed() -> tuple[int, int] | None:
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _environment() -> tuple[int, int]:
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if not rank or not world_size:
        return 0, 1
    try:
        return int(rank), int(world_size)
    except ValueError:
        raise Argument(f"`rank`: RANK is `{rank}` and WORLD_SIZE `{world_size}`, want numbers") from None


def pem(given: str | bytes | os.PathLike[str] | None, name: str) -> bytes | None:
    """Certificates or a key: a file's, or PEM text itself."""
    if given is None or isinstance(given, bytes):
        return given
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise Argument(f"`{name}`: {error}") from error


def credentials(
    token: str | None,
    token_file: str | os.PathLike[str] | None,
    tls_ca: str | bytes | os.PathLike[str] | None,
    tls_cert: str | bytes | os.PathLike[str] | None,
    tls_key: str | bytes | os.PathLike[str] | None,
) -> dict[str, Any]:
    """What shows who this is and who the server is, by the client's names."""
    if (tls_cert is None) != (tls_key is None):
        raise Argument("`tls_cert`, `tls_key`: expected both or none of them")
    if token is not None and token_file is not None:
        raise Argument("`token`, `token_file`: expected one of them")
    if token is None and token_file is None:
        token = os.environ.get("MIXFEED_TOKEN") or None
    certificate, key = pem(tls_cert, "tls_cert"), pem(tls_key, "tls_key")
    return {
        "token": token,
        "token_file": None if token_file is None else os.fspath(token_file),
        "tls_ca": pem(tls_ca, "tls_ca"),
        "tls_identity": None if certificate is None else (certificate, key),
    }


def check_workers() -> None:
    """Refuses to be read by workers of a torch DataLoader."""
    data = sys.modules.get("torch.utils.data")
    worker = data.get_worker_info() if data is not None else None
    if worker is not None:
        raise Argument(
            f"`num_workers`: is {worker.num_workers}, want 0: the server prepares batches and a thread "
            "receives them ahead, and the loader's position and reports live in the trainer's process"
        )
