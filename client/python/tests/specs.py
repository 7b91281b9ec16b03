"""Specs of jobs, in the shape of `[jobs.NAME]`. Pictures are not square, and batches no power of two."""

BATCH, BLOCK, HEIGHT, WIDTH = 24, 8, 40, 56


def photos(**other):
    """Mixed photographs without end."""
    spec = {
        "groups": [{"group": "photos"}],
        "seed": 3,
        "global_batch": BATCH,
        "mix_block": BLOCK,
        "image": {"height": HEIGHT, "width": WIDTH, "random_resized_crop": {}, "horizontal_flip": 0.5},
        "mix": {"policies": [{"name": "mixup"}, {"name": "cutmix"}]},
    }
    return {**spec, **other}


def large(**other):
    """Batches of 7 MB, which no window swallows whole."""
    image = {"height": 300, "width": 320, "random_resized_crop": {}}
    return photos(image=image, **other)


def texts(**other):
    """Rows of tokens."""
    spec = {"groups": [{"group": "texts"}], "seed": 3, "global_batch": 12, "tokens": {"seq_len": 64}}
    return {**spec, **other}


def scenes(**other):
    """Unions of tiles."""
    spec = {
        "groups": [{"group": "tiles"}],
        "seed": 3,
        "global_batch": 6,
        "mix_block": 2,
        "points": {
            "max_points": 60000,
            "max_scene_points": 4000,
            "features": ["intensity"],
            "fill": {"intensity": 0},
        },
        "mix": {"policies": [{"name": "mix3d"}]},
    }
    return {**spec, **other}
