"""Few-shot tasks, and the head that is made of their context."""

import torch

from recipes.evidence.corruptions import inversion
from recipes.evidence.images import Images
from recipes.evidence.tasks import QUERIES, SHOTS, WAYS, logits_by_means, tasks


def pool():
    """Twelve images of each of seven classes: each tells its number in its only pixel."""
    numbers = torch.arange(84)
    return Images(numbers.byte().view(-1, 1, 1, 1), numbers % 7, torch.zeros_like(numbers), ())


def numbers(images):
    return images.pixels.float()


def drawn(corruptions=(None,), count=20, seed=0):
    return list(tasks(pool(), corruptions, count, seed, ready=numbers))


def test_a_task_has_images_of_each_class_once():
    for task in drawn():
        context, queries = task.context.flatten(), task.queries.flatten()
        assert len(context) == WAYS * SHOTS and len(queries) == WAYS * QUERIES
        assert len(torch.cat([context, queries]).unique()) == len(context) + len(queries)
        classes = (context % 7)[::SHOTS]
        assert len(classes.unique()) == WAYS
        assert torch.equal(context % 7, classes.repeat_interleave(SHOTS))
        assert torch.equal(queries % 7, classes[task.labels])


def test_a_task_is_under_one_corruption_or_clean():
    are_high = [torch.cat([task.context, task.queries]) >= 100 for task in drawn((None, inversion))]
    assert {bool(high.all()) for high in are_high} == {True, False}
    assert all(high.all() or not high.any() for high in are_high)


def test_a_seed_draws_the_same_tasks():
    one, same, other = (drawn(seed=seed, count=2) for seed in (3, 3, 4))
    assert all(torch.equal(a.queries, b.queries) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0].queries, other[0].queries)
    assert not torch.equal(one[0].queries, one[1].queries)


def test_queries_are_of_the_class_whose_mean_is_nearest():
    torch.manual_seed(0)
    means = torch.randn(WAYS, 16)
    context = means.repeat_interleave(SHOTS, 0) + 0.1 * torch.randn(WAYS * SHOTS, 16)
    logits = logits_by_means(context, means)
    assert logits.argmax(1).tolist() == list(range(WAYS))
    assert torch.allclose(logits_by_means(3 * context + 1, 3 * means + 1), logits, atol=1e-4)  # from their centre
