"""A metric of one's own: how well confidence and accuracy agree. More is better, as everywhere."""


def calibration(logits, labels, bins=10):
    """100 (1 - ECE) in percent; ECE = sum over bins of confidence of share * |accuracy - confidence|.

    logits: (N, K) float, labels: (N,) int64, both on the CPU.
    """
    import torch

    confidence, answer = logits.softmax(1).max(1)
    right = (answer == labels).float()
    place = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins).index_add(
        0, place, right - confidence
    )  # of a bin: share * N * (accuracy - conf.)
    return 100 * (1 - gap.abs().sum() / len(labels))


METRICS = {"calibration": calibration}
