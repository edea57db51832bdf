"""A training function of one's own, in place of the harness's loop: a linear classifier on raw pixels."""


def train(spec, run):
    """Called once per run, and again with the same `run.folder` after an interruption."""
    import torch

    from harness.data.augment import View, evaluation_images

    data, recipe = run.data(), spec.arm.recipe
    view = View(size=recipe.data.resolution, mean=data.mean, std=data.std, device=run.device)

    def pixels(split):
        every = torch.arange(len(split.labels))
        return evaluation_images(split, every, eval_crop=1.0, view=view).flatten(1)

    images, labels = pixels(data.train), data.train.labels.to(run.device)
    layer = torch.nn.Linear(images.shape[1], data.classes).to(run.device)  # torch's generator is seeded
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9)
    for step in range(1, 51):
        if run.should_stop():
            return None  # nothing worth keeping: the next attempt starts again
        loss = torch.nn.functional.cross_entropy(layer(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(step=step, train_loss=loss.item())
    return {
        "logits": layer(pixels(data.test))
    }  # top-1, top-5, loss and the study's metrics are made of these


TRAINERS = {"linear": train}
