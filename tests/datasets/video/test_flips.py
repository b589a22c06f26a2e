import torch

from rstg_pyg.datasets.video import mirror_classes

CLASSES = [
    "Pulling something from left to right",
    "Pulling something from right to left",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
    "Putting something that can't actually stand upright upright on the table, so it falls on its side",
    "Moving something up",
    "Right something",
    "Lifting leftovers",
]


def test_which_classes_change_in_a_mirror():
    assert mirror_classes(CLASSES) == [1, 0, 3, 2, 4, 5, None, 7]
    assert mirror_classes(CLASSES[3::-1]) == [1, 0, 3, 2]


def flipped(make, flip, **kwargs):
    """For every video and some epochs: its class, the label, and whether the clip is the mirror image."""
    options = {"version": "v1", "views": "train", "colour_jitter": 0.0, "scale": (1.0, 1.0), **kwargs}
    plain, dataset = make(flip="never", **options), make(flip=flip, **options)
    results = []
    for epoch in range(12):
        for i in range(len(plain)):
            one, other = plain.clip(i, epoch), dataset.clip(i, epoch)
            is_mirrored = torch.equal(one.video.flip(-1), other.video)
            assert is_mirrored or torch.equal(one.video, other.video)
            results.append((plain.classes[one.y], plain.classes[other.y], is_mirrored))
    return results


def test_clips_of_classes_with_a_direction_are_never_flipped(make):
    results = flipped(make, "undirected")
    assert all(before == after for before, after, _ in results)
    assert not any(mirrored for name, _, mirrored in results if "left" in name)
    others = [mirrored for name, _, mirrored in results if "left" not in name]
    assert 0.3 < sum(others) / len(others) < 0.7


def test_swapping_changes_the_label_with_the_flip(make):
    results = flipped(make, "swap")
    assert 0.3 < sum(mirrored for _, _, mirrored in results) / len(results) < 0.7
    left, right = "Pushing something from right to left", "Pushing something from left to right"
    for before, after, mirrored in results:
        assert after == ({left: right, right: left}.get(before, before) if mirrored else before)
    assert {mirrored for before, _, mirrored in results if before == left} == {True, False}


def test_no_flip_at_evaluation(make):
    for views in ("centre", "22"):
        assert torch.equal(make(views=views, flip="swap")[0].video, make(views=views, flip="never")[0].video)
