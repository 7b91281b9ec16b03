"""Every example runs, in its quick form, against a server that it starts; what its table rests on holds."""

import pytest

pytest.importorskip("torch")

import calibration
import digits
import handwriting
import language_model
import points
import torch


def every_step_once(run, steps):
    return run["steps"] == list(range(steps))


def test_digits(capsys):
    runs = digits.main(["--quick"])
    table = capsys.readouterr().out
    for name, (run,) in runs.items():
        assert every_step_once(run, 50), name
        assert run["accuracy"] > 40, f"{name}: ten classes, and {run['accuracy']} % right"
        assert run["tested"] == runs["clean"][0]["tested"] > 800
        assert f"{name:<16} {run['accuracy']:.2f}" in table
    # What a row keeps of its own label: all where nothing is mixed; Beta(0.4, 0.4) has the mean 1/2. A box of
    # side sqrt(u), u uniform, about a uniform centre has the area (sqrt(u) - u / 4)^2 inside of the picture.
    # Half is mixed.
    box = 1 / 2 - 1 / 5 + 1 / 48
    expected = {"clean": 1, "mixup": 1 / 2, "cutmix": 1 - box / 2, "mixup or cutmix": 1 - (box + 1 / 2) / 4}
    for name, own in expected.items():
        assert runs[name][0]["own"] == pytest.approx(own, abs=0.025), name


def test_calibration(capsys):
    runs = calibration.main(["--quick"])
    table = capsys.readouterr().out
    for method, (run,) in runs.items():
        assert every_step_once(run, 50), method
        assert run["apart"] == 0, "the plan does not give the server's mix"
        assert 0 <= run["error"] <= 100 and 10 <= run["confidence"] <= 100
        assert f"{run['error']:.2f}" in table
    for method in ("cross entropy", "MRL", "M-NDCG"):
        assert runs[method][0]["accuracy"] > 50, method
    # The ranks change what is learnt.
    assert len({run["confidence"] for (run,) in runs.values()}) == len(calibration.METHODS)


def test_calibration_error_of_known_guesses():
    sure = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    classes = torch.tensor([0, 0, 0, 1])
    # Bin of 0.9: all right, 0.1 too modest; bin of 0.7: half right, 0.2 too sure; two rows each.
    assert calibration.calibration_error(sure, classes) == pytest.approx(0.5 * 0.1 + 0.5 * 0.2)


def test_points(capsys):
    runs = points.main(["--quick"])
    table = capsys.readouterr().out
    (single,), (mixed,) = runs["single scenes"], runs["Mix3D"]
    for run in (single, mixed):
        assert every_step_once(run, 40)
        assert all(0 <= iou <= 100 for iou in run["iou"].values())
        assert run["iou"]["ground"] > 50 and run["iou"]["plants"] > 30, "not better than one class for all"
        assert f"{run['iou']['mean']:.2f}" in table
    assert single["scenes"] == {1} and mixed["scenes"] == {2}
    assert mixed["points"] == pytest.approx(single["points"], rel=0.1), "a step should cost the same"


def test_language_model(capsys):
    runs = language_model.main(["--quick"])
    table = capsys.readouterr().out
    (equal,), (learnt,) = runs["stratified"], runs["aioli"]
    uniform = torch.log(torch.tensor(256.0)).item()
    for run in (equal, learnt):
        assert every_step_once(run, 60)
        assert all(loss < 0.7 * uniform for loss in run["loss"].values()), run["loss"]
        assert all(sum(row) == pytest.approx(1) for row in (*run["shares"], *run["weights"]))
        assert f"{run['loss']['speech']:.3f}" in table
    assert all(share == pytest.approx(1 / 3, abs=0.02) for row in equal["shares"] for share in row)
    assert max(abs(share - 1 / 3) for share in learnt["shares"][-1]) > 0.02, "the shares did not move"
    assert learnt["shares"][0] != learnt["shares"][1]
    for wanted, served in zip(learnt["weights"], learnt["shares"], strict=True):
        assert served == pytest.approx(wanted, abs=0.01), "not what the log says"
        assert "".join(f"{share:9.3f}" for share in wanted) in table
    assert equal["weights"] == [pytest.approx([1 / 3] * 3)]
    # Before and after each of the two rounds' probes, nothing late, nothing refused.
    counts = learnt["reports"]
    assert counts["counted"] >= 2 * (language_model.PROBES // language_model.PROBE), counts
    assert (counts["refused"], counts["stale"], counts["waiting_bytes"]) == (0, 0, 0)


def test_documents_of_the_test_are_not_served(tmp_path):
    _, kept = language_model.write(tmp_path)
    for text, rows in kept.items():
        served = b"".join(path.read_bytes() for path in (tmp_path / "texts" / text).iterdir())
        assert len(rows) > 200
        longest = bytes(rows[len(rows) // 2].tolist())
        assert longest not in served


def test_pictures_are_what_the_file_says(tmp_path):
    handwriting.write(tmp_path)
    files = sorted(tmp_path.glob("*/*.png"))
    assert len(files) == 1797 and {path.parent.name for path in files} == {str(digit) for digit in range(10)}
    assert files[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_mixes_made_here_take_what_the_next_block_drew():
    block, side = calibration.BLOCK, handwriting.SIDE
    row = torch.arange(4 * block)
    # In block b, rows are mixed with those b + 1 places further on.
    number, place = row // block, row % block
    partner = number * block + (place + number + 1) % block
    lam = row / len(row)
    plan = calibration.Plan(
        base=row,
        partner=partner,
        policy=torch.zeros(len(row), dtype=torch.int32),
        lam=lam,
        rest=1 - lam,
        sampled=lam.double(),
        box=torch.zeros((len(row), 4), dtype=torch.int32),
        classes=torch.stack((row, partner), 1).int(),
        words=None,
        head=None,
        first=0,
        slots=len(row),
        size=(side, side),
        layout="nchw",
        smoothing=0.0,
    )
    turned = calibration.turned(plan, 1)
    assert turned.partner.tolist() == (number * block + (place + (number + 1) % 4 + 1) % block).tolist()
    assert turned.lam.tolist() == lam.roll(-block).tolist()
    classes, weights = turned.labels()
    assert torch.equal(classes, torch.stack((row, turned.partner), 1))
    assert torch.equal(weights, torch.stack((turned.lam, turned.rest), 1))
    pixels = torch.rand(len(row), 1, side, side)
    made = calibration.mix(pixels, turned, by="lambda")
    wanted = torch.einsum("rk,rkchw->rchw", weights, pixels[classes])
    assert torch.allclose(made, wanted, atol=1e-6)
