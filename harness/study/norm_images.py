"""Over how many images batch norm takes its statistics in a training step, and what to say where it is 1."""

from __future__ import annotations

from harness.study.spec import Recipe

TOO_FEW = "more than 1 value per channel"  # in torch's own error


def fewest_normalised(recipe: Recipe, images: int | None) -> int:
    """The fewest images over which batch norm takes its statistics in a training step; `images`: of the
    training part, where that is known."""
    batch = min(recipe.batch_size, images) if images else recipe.batch_size
    groups = recipe.norm_images
    return batch % groups or groups if 0 < groups < batch else batch


def in_words(recipe: Recipe) -> str:
    """Why batch norm has one image, and what to do."""
    side = f"{recipe.data.resolution} x {recipe.data.resolution} pixels"
    if 0 < recipe.norm_images < recipe.batch_size:
        groups = f"groups of {recipe.norm_images} (norm_images)"
        why = f"its batches of at most {recipe.batch_size} images, in {groups}, have a group"
    else:
        why = f"with batch_size {recipe.batch_size} a step is one"
    return (
        f"{why} of 1 image, and at {side} a batch norm of {recipe.model.name} then has one value per "
        "channel, from which no variance can be had; use 2 images or more, or more pixels"
    )
