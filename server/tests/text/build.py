#!/usr/bin/env python3
"""Builds groups of real text for tests of learning: OUT/GROUP/{train,test}/NNNN.txt and OUT/MANIFEST.

usage: build.py [OUT]        (default: test-data/text in the repository)

Everything comes from packages whose bytes are pinned here by SHA-256, and from the Rust sources that Cargo.lock pins:
the same script gives the same bytes on every machine. It needs Python 3.11 and pip (or venv), dpkg-deb and apt-get of
Debian 12, and cargo. MANIFEST has a line per group: files, bytes, BLAKE2 digest of names and contents. Nothing is done
when OUT was made from the same inputs already.
"""

import base64, collections, gzip, hashlib, io, json, pathlib, shutil, struct, subprocess, sys, tarfile, venv, zipfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
FILE_CAP, GROUP_CAP = 40_000, 3_000_000
# The Japanese pages are cut short so that a run repeats them: a small group is what learning has to notice.
CAPS = {"man_ja": 440_000}
# One document in so many is for the final test only.
TEST_EVERY = 10

DEBS = {
    "manpages=6.03-2": "efa1ba4cd19ad7baeae959c9209a7eb74be2ebb858bcabb412597bfc9f588c91",
    "manpages-de=4.18.1-1": "37d2e7ee51f22952aecec3af93647ff59194a3c74bb7a694560f49c7f7ab3978",
    "manpages-ja=0.5.0.0.20221215+dfsg-1": "4d270e9a1e83be4de0c072a110892a17dc9caa4b501257324006ac28d82c5743",
    "exim4-doc-html=4.96-1": "f0613395fd73c3c278b619c8162c5a183e7874cbfdebe3614b4b3339d5d8a120",
}
WHEELS = {
    "certifi==2026.10.18": "73191c47aaa79da394e8fee2dbc2ec827432cab56311122c9e47abf79e390f62",
    "Cython==3.3.1": "26a28e0ca5dffe9c7d69d1e3a0f78cb74f41b2b6b40771f620262a5d04862a00",
}
# One kind of wheel whatever this machine is: its bytes are the data.
WHEEL_KIND = ["--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
              "--abi", "none", "--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64"]
CRATES = ["clap_builder", "h2", "hyper", "image", "parquet", "proptest", "rayon", "regex-automata", "tokio", "tonic"]


def give_up(why):
    sys.exit(f"text groups: {why}")


def run(command, why, **more):
    """Output of `command`; ends the script with `why` and the command's own words when it fails."""
    try:
        return subprocess.run(command, check=True, capture_output=True, **more).stdout
    except FileNotFoundError:
        give_up(f"{why}: `{command[0]}` is not installed")
    except subprocess.CalledProcessError as failed:
        give_up(f"{why}: {failed.stderr.decode(errors='replace').strip() or failed}")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def found(folder, pinned):
    """Path of each package of `pinned` in `folder`, by digest: names differ between package managers."""
    by_digest = {sha256(path): path for path in folder.iterdir() if path.is_file()}
    return {name: by_digest.get(digest) for name, digest in pinned.items()}


def fetch(folder):
    """Downloads what is missing; {package: path}."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name, path in found(folder, DEBS).items() if path is None]
    if missing:
        get = ["apt-get", "download", "-qq", *missing]
        if subprocess.run(get, cwd=folder, capture_output=True).returncode:
            run(["apt-get", "update", "-qq"], "reading Debian's package lists")
            run(get, "downloading Debian packages (Debian 12 is wanted)", cwd=folder)
    missing = [name for name, path in found(folder, WHEELS).items() if path is None]
    if missing:
        python = sys.executable
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
            venv.create(folder / "venv", with_pip=True)
            python = str(folder / "venv/bin/python")
        get = [python, "-m", "pip", "download", "--quiet", "--no-deps", *WHEEL_KIND, "--dest", str(folder), *missing]
        run(get, "downloading wheels")
    paths = found(folder, DEBS) | found(folder, WHEELS)
    wrong = [name for name, path in paths.items() if path is None]
    if wrong:
        give_up(f"what was downloaded as {', '.join(wrong)} is not the package that is pinned")
    return paths


def deb(path):
    """(name, bytes) of each regular file of a Debian package."""
    packed = run(["dpkg-deb", "--fsys-tarfile", str(path)], f"unpacking {path.name}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        return [(m.name, files.extractfile(m).read()) for m in files if m.isfile()]


def wheel(path):
    with zipfile.ZipFile(path) as files:
        return [(i.filename, files.read(i)) for i in files.infolist() if not i.is_dir()]


def crates():
    """(crate, folder) of the crates that lend their sources, as Cargo.lock pins them."""
    said = run(["cargo", "metadata", "--format-version", "1", "--locked"], "asking cargo for sources", cwd=ROOT)
    packages = json.loads(said)["packages"]
    known = {p["name"]: (f"{p['name']}-{p['version']}", pathlib.Path(p["manifest_path"]).parent) for p in packages}
    if lost := [name for name in CRATES if name not in known]:
        give_up(f"Cargo.lock no longer has {', '.join(lost)}")
    return [known[name] for name in CRATES]


def manual(files, folder):
    """Sources of manual pages below `folder` without comments; links to other pages are left out."""
    pages = [(n, gzip.decompress(b)) for n, b in files if f"/man/{folder}" in n and n.endswith(".gz")]
    clean = lambda page: b"".join(l for l in page.splitlines(True) if not l.startswith(b".\\\""))
    return [(n, clean(p)) for n, p in pages if not p.startswith(b".so ")]


def certificates(bundle):
    """Each certificate of a bundle without the comments around it."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----\n"
    return [(f"{i:04}", begin + part.split(end)[0] + end) for i, part in enumerate(bundle.split(begin)[1:])]


def deflated(path):
    """Compiled code as the wheel holds it, deflated, in base 64: text that nobody can learn to predict well."""
    size, whole = 28_000, path.read_bytes()
    with zipfile.ZipFile(path) as files:
        for entry in (e for e in files.infolist() if e.filename.endswith(".so")):
            names, extra = struct.unpack_from("<HH", whole, entry.header_offset + 26)
            begin = entry.header_offset + 30 + names + extra
            for at in range(0, entry.compress_size, size):
                part = whole[begin + at : begin + min(at + size, entry.compress_size)]
                yield f"{entry.filename}/{at:08}", base64.encodebytes(part)


def hashes(files):
    """SHA-512 of each file, one a line."""
    lines = [hashlib.sha512(data).hexdigest().encode() + b"\n" for _, data in files]
    return [(f"{at:06}", b"".join(lines[at : at + 50])) for at in range(0, len(lines), 50)]


def groups(paths, rust):
    files = {name.split("=")[0]: (deb if name in DEBS else wheel)(path) for name, path in paths.items()}
    cython = files["Cython"]
    yield "rust", [(f"{crate}/{p.relative_to(at)}", p.read_bytes()) for crate, at in rust for p in at.rglob("*.rs")]
    yield "python", [(n, b) for n, b in cython if n.endswith(".py")]
    yield "man_en", manual(files["manpages"], "man")
    yield "man_de", manual(files["manpages-de"], "de/")
    yield "man_ja", manual(files["manpages-ja"], "ja/")
    yield "html", [(n, b) for n, b in files["exim4-doc-html"] if n.endswith(".html")]
    yield "pem", certificates(dict(files["certifi"])["certifi/cacert.pem"])
    yield "b64", deflated(paths["Cython==3.3.1"])
    yield "hash", hashes(sorted(file for some in files.values() for file in some))


def cut(text):
    """At most FILE_CAP bytes, at the end of a line where there is one."""
    if len(text) <= FILE_CAP:
        return text
    text = text[:FILE_CAP]
    return text[: text.rfind(b"\n") + 1] or text


def chosen(name, documents):
    """Documents in an order that depends on their names only, up to the group's cap."""
    order = sorted(documents, key=lambda d: hashlib.sha256(f"{name}/{d[0]}".encode()).digest())
    kept, size, cap = [], 0, CAPS.get(name, GROUP_CAP)
    for text in (cut(text) for _, text in order):
        if len(text) < 200 or size + len(text) > cap:
            continue
        kept.append(text)
        size += len(text)
    return kept


def write(out, name, texts):
    """Writes a group; its line of the manifest."""
    digest, counts = hashlib.blake2b(digest_size=16), collections.Counter()
    for i, text in enumerate(texts):
        part = "test" if i % TEST_EVERY == TEST_EVERY - 1 else "train"
        path = out / name / part / f"{counts[part]:04}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        counts[part] += 1
        digest.update(f"{part}/{path.name} {len(text)}\n".encode() + text)
    size = sum(map(len, texts))
    return f"{name} {counts['train']} + {counts['test']} files {size} bytes {digest.hexdigest()}"


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "test-data/text").resolve()
    rust = crates()
    inputs = hashlib.sha256(pathlib.Path(__file__).read_bytes() + repr([crate for crate, _ in rust]).encode())
    head, manifest = f"inputs {inputs.hexdigest()[:32]}", out / "MANIFEST"
    if manifest.is_file() and manifest.read_text().startswith(head + "\n"):
        return
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    lines = [head] + [write(fresh, n, chosen(n, d)) for n, d in groups(fetch(out.parent / "downloads"), rust)]
    (fresh / "MANIFEST").write_text("\n".join(lines) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    print("\n".join(lines[1:]))


if __name__ == "__main__":
    main()
