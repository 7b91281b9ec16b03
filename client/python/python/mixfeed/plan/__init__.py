"""Mixing on the trainer's device: a recipe is clean rows and a plan, and `mix` carries it out.

Jobs of pictures whose `output.delivery` is `recipe` or `both` send every slot's clean row (`image.clean`,
u8) and the plan of every row (`plan.op`). What comes out is what the server itself would have sent, bit for
bit in every dtype that it sends:

    plan = mixfeed.plan.Plan.of(batch, device="cuda")
    clean = batch["image.clean"]
    x = mix(clean, plan)                       # u8, the server's `image`
    x = mix(clean, plan, dtype=torch.float16, normalize=(mean, std))
    h = mix(model.stem(clean.float()), plan)   # manifold mixup: any tensor with a row for each clean one
    loss = mixfeed.losses.cross_entropy(model(x), *plan.labels(), smoothing=plan.smoothing)

torch is needed.
"""

from __future__ import annotations

from mixfeed.plan.mixing import mix
from mixfeed.plan.recipe import Op, Plan, RecipeError

__all__ = ["Op", "Plan", "RecipeError", "mix"]
