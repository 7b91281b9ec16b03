"""What the trainer mixes is what the server mixed: every policy, layout and dtype, where both are sent."""

from __future__ import annotations

import itertools
import subprocess

import pytest
import torch
from server import PROGRAM

import mixfeed.plan
from mixfeed.plan import Op, Plan, mix

HEIGHT, WIDTH, BATCH, BLOCK = 42, 56, 24, 6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE = {"mean": list(MEAN), "std": list(STD)}
DTYPES = {"u8": torch.uint8, "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}

# Every policy with every option that changes what it draws.
POLICIES = {
    "mixup": [{}],
    "cutmix": [{"options": {"box_rule": rule}} for rule in ("full_odd", "minmax", "float_centre")],
    "resizemix": [{"options": {"interp": how}} for how in ("bilinear", "nearest", "area")],
    "fmix": [{}, {"params": {"max_soft": 0.4}}, {"options": {"spectrum": "compat"}}],
    "gridmix": [{}],
    "maskmix": [{"params": {"cell": 16}}, {"params": {"cell": 5}, "options": {"lam_from": "count"}}],
    "smoothmix": [{}],
}
SCENES = {"mix3d", "polarmix", "lasermix"}
MIXERS = {"learned"}  # needs a network of the operator
OPS = {
    "mixup": Op.BLEND,
    "cutmix": Op.PASTE,
    "resizemix": Op.PASTE,
    "fmix": Op.CELLS,
    "gridmix": Op.LATTICE,
    "maskmix": Op.CELLS,
    "smoothmix": Op.BUMP,
}


def spec(policies, delivery="both", output=None, image=None, **mix_):
    shown = {"height": HEIGHT, "width": WIDTH, "random_resized_crop": {}, "horizontal_flip": 0.5}
    return {
        "groups": [{"group": "photos"}],
        "seed": 11,
        "global_batch": BATCH,
        "mix_block": BLOCK,
        "image": {**shown, **(image or {})},
        "mix": {"policies": policies, "choose": "row", "pairing": "derange", **mix_},
        "output": {"delivery": delivery, **(output or {})},
    }


def every():
    return [{"name": name, **given} for name, all_ in POLICIES.items() for given in all_]


def first(loader, count=3):
    return list(itertools.islice(loader, count))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_bytes_of_every_policy_are_the_servers(load, name, layout):
    policies = [{"name": name, **given} for given in POLICIES[name]]
    seen = set()
    for batch in first(load(spec(policies, output={"layout": layout}))):
        plan = Plan.of(batch)
        seen |= {op for op, _ in plan.rows()}
        assert (len(plan), plan.slots, plan.size, plan.layout) == (BATCH, BATCH, (HEIGHT, WIDTH), layout)
        got = mix(batch["image.clean"], plan)
        assert torch.equal(got, batch.images)
        assert not torch.equal(got, batch["image.clean"])
    assert OPS[name] in seen


def test_no_policy_of_pictures_is_left_out():
    told = subprocess.run([PROGRAM, "policies"], capture_output=True, text=True, check=True).stdout
    listed = {line for line in told.splitlines() if line and not line.startswith(" ")}
    assert listed - SCENES - MIXERS == set(POLICIES), "a policy without a line here"


@pytest.mark.parametrize(
    ("dtype", "normalized"), [("u8", False), *itertools.product(list(DTYPES)[1:], [False, True])]
)
def test_floats_from_bytes_are_the_servers_bit_for_bit(load, dtype, normalized):
    image = {"normalize": NORMALIZE} if normalized else None
    for batch in first(load(spec(every(), output={"dtype": dtype}, image=image)), 2):
        wanted = (
            {}
            if dtype == "u8"
            else {"dtype": DTYPES[dtype], "normalize": (MEAN, STD) if normalized else None}
        )
        got = mix(batch["image.clean"], Plan.of(batch), **wanted)
        assert got.dtype == batch.images.dtype
        assert torch.equal(got, batch.images)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)]
)
def test_rows_that_the_trainer_made_floats_of_differ_by_rounding(load, dtype, tolerance):
    """Mixing after the conversion: one rounding of the input more, on values of 0..=1."""
    for batch in first(load(spec(every(), output={"dtype": "f32"})), 2):
        clean = (batch["image.clean"].float() / 255).to(dtype)
        got = mix(clean, Plan.of(batch))
        assert got.dtype == dtype
        assert (got.float() - batch.images).abs().max() <= tolerance


def test_a_recipe_has_no_mixed_rows_and_the_same_plan(load):
    both = first(load(spec(every()), job="recipe-both"))
    recipe = first(load(spec(every(), "recipe"), job="recipe-only"))
    for mixed, clean in zip(both, recipe, strict=True):
        assert "image" not in clean and "image.clean" in clean
        assert torch.equal(mix(clean["image.clean"], Plan.of(clean)), mixed.images)
        assert clean.nbytes < mixed.nbytes


@pytest.mark.parametrize("pairing", ["flip", "consecutive"])
def test_half_of_the_rows_is_made_of_all_clean_ones(load, pairing):
    for batch in first(load(spec(every(), granularity="half", pairing=pairing))):
        plan = Plan.of(batch)
        assert (len(plan), plan.slots) == (BATCH // 2, BATCH)
        assert torch.equal(mix(batch["image.clean"], plan), batch.images)


@pytest.mark.parametrize("half", [False, True])
def test_ranks_and_micro_batches_are_whole_by_themselves(load, half):
    how = {"granularity": "half", "pairing": "flip"} if half else {}
    for rank in range(2):
        loader = load(spec(every(), **how), job=f"ranks-{half}", rank=rank, world_size=2)
        for batch in first(loader, 2):
            assert torch.equal(mix(batch["image.clean"], Plan.of(batch)), batch.images)
            parts = batch.split(2)
            made = [mix(part["image.clean"], Plan.of(part)) for part in parts]
            assert [len(rows) for rows in made] == [len(batch.images) // 2] * 2
            assert torch.equal(torch.cat(made), batch.images)


def test_facts_of_the_plan_are_those_of_the_batch(load):
    seen = 0
    for batch in first(load(spec(every(), gate_prob=0.7, smoothing=0.1))):
        plan = Plan.of(batch)
        classes, weights = plan.labels()
        assert torch.equal(classes, batch.labels.classes.long())
        assert torch.equal(weights, batch.labels.weights)
        assert torch.equal(plan.policy, batch["plan.policy"]) and torch.equal(
            plan.sampled, batch["plan.lambda"][:, 0]
        )
        # A row's partner is the base of its own row here, and groups say the same.
        assert torch.equal(batch["sample.group"][:, 0][plan.partner], batch["sample.group"][:, 1])
        assert plan.smoothing == pytest.approx(0.1)
        clean_rows = plan.policy < 0
        seen += int(clean_rows.sum())
        assert torch.equal(plan.lam[clean_rows], torch.ones(int(clean_rows.sum())))
        # With lam_from = area, the default, the label's weight is the mask's mean; options above that say
        # otherwise are left out.
        area = ~torch.isin(
            plan.policy,
            torch.tensor([i for i, p in enumerate(every()) if p["name"] == "maskmix"], dtype=torch.int32),
        )
        torch.testing.assert_close(plan.mask().mean((1, 2))[area], plan.lam[area], atol=2e-6, rtol=0)
        # A grid that divides the raster keeps it: 42 x 56 pixels in 6 x 8 cells.
        torch.testing.assert_close(plan.mask((6, 8)).mean((1, 2))[area], plan.lam[area], atol=2e-6, rtol=0)
    assert seen > 0, "the gate left no row clean"


def test_dense_labels_are_the_servers(load):
    pairs = first(load(spec(every(), smoothing=0.2), job="dense-pairs"))
    dense = first(load(spec(every(), smoothing=0.2, output={"labels": "dense"}), job="dense-rows"))
    for pair, row in zip(pairs, dense, strict=True):
        assert torch.equal(Plan.of(pair).dense(row.labels.shape[1]), row.labels)


def test_manifold_mixup_at_depth_zero_is_mixup_and_deeper_it_is_a_blend_of_features(load):
    torch.manual_seed(0)
    stem = torch.nn.Conv2d(3, 8, 4, stride=4)
    for batch in first(load(spec([{"name": "mixup"}])), 2):
        plan = Plan.of(batch)
        clean = batch["image.clean"].float() / 255
        h = stem(clean)
        mixed = mix(h, plan)
        # A convolution is linear up to its bias, which the weights of a blend leave as it is.
        torch.testing.assert_close(mixed, stem(mix(clean, plan)), atol=1e-5, rtol=1e-5)
        mixed.sum().backward()
        assert stem.weight.grad is not None and stem.weight.grad.abs().sum() > 0


def test_batches_of_mixed_rows_tell_facts_and_no_masks(load):
    batch = first(load(spec(every(), "mixed")), 1)[0]
    plan = Plan.of(batch)
    assert torch.equal(plan.labels().weights, batch.labels.weights)
    with pytest.raises(mixfeed.plan.RecipeError, match="delivery `recipe` or `both`"):
        plan.mask()


@pytest.mark.parametrize("arrays", ["numpy", "raw"])
def test_plans_come_from_other_kinds_of_arrays(load, arrays):
    loader = load(spec(every()))
    want = Plan.of(next(loader))
    other = load(spec(every()), job=loader.describe()["job"], arrays=arrays, exclusive=False)
    found = Plan.of(next(other))
    for name in ("base", "partner", "policy", "box", "words"):
        assert torch.equal(getattr(found, name), getattr(want, name)), name
