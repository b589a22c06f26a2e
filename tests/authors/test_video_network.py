"""The program's video networks, held against plain formulas over the program's variables."""

import pytest
import torch
from program_network import program_logits, program_shapes, random_variables

from rstg_pyg.authors import AuthorsVideoNet, load_variables, placements

NETWORKS = [("c2d", ()), ("c2d", ("final",)), ("i3d", ("final",)), ("i3d", ("res3", "res4")), ("i3d", ("res2", "res5"))]
PUBLISHED = {
    "c2d": ("c2d", ()),
    "c2d_rstg": ("c2d", ("final",)),
    "i3d": ("i3d", ()),
    "i3d_rstg_final": ("i3d", ("final",)),
    "i3d_rstg_res3_res4": ("i3d", ("res3", "res4")),
}


def loaded(backbone, places):
    variables = random_variables(program_shapes(backbone, places))
    net = AuthorsVideoNet(backbone, places, num_classes=5, width=2)
    load_variables(net, variables)
    return net.eval(), variables


@pytest.mark.parametrize(("backbone", "places"), NETWORKS)
def test_logits_are_those_of_the_plain_formulas(backbone, places):
    net, variables = loaded(backbone, places)
    video = torch.randn(2, 3, 4, 64, 80)
    with torch.no_grad():
        logits = net(video)
        torch.testing.assert_close(logits, program_logits(variables, backbone, places, video), rtol=1e-4, atol=1e-4)
        if places:
            without = {**variables, **{name: 0 * a for name, a in variables.items() if name.endswith("_ln_scale")}}
            load_variables(net, without)
            assert (net(video) - logits).abs().max() > 0.1


def test_large_crops_are_pooled_in_windows():
    net, variables = loaded("c2d", ("final",))
    video = torch.randn(1, 3, 2, 232, 250)
    with torch.no_grad():
        expected = program_logits(variables, "c2d", ("final",), video)
        torch.testing.assert_close(net(video), expected, rtol=1e-4, atol=1e-4)
        features = net.features(video)
    assert features.shape == (1, 64, 1, 15, 16)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_the_variables_of_the_program(name):
    net = AuthorsVideoNet.published(name)
    table = placements(net)
    shapes = program_shapes(*PUBLISHED[name], width=64, num_classes=174)
    assert {variable: table[variable].shape for variable in shapes} == shapes
    filled = {piece.name for variable in shapes for piece in table[variable].place(torch.empty(shapes[variable]))}
    entries = {entry for entry in net.state_dict() if not entry.endswith("num_batches_tracked")}
    assert filled == entries


def test_a_new_network_computes_what_its_backbone_does():
    net = AuthorsVideoNet("i3d", ("res3", "final"), num_classes=5, width=2).eval()
    bare = AuthorsVideoNet("i3d", (), num_classes=5, width=2).eval()
    bare.load_state_dict({name: value for name, value in net.state_dict().items() if name in bare.state_dict()})
    video = torch.randn(1, 3, 4, 48, 48)
    assert torch.equal(net(video), bare(video))


def test_training_keeps_the_batch_statistics_and_drops_features():
    net, _ = loaded("c2d", ("final",))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    video = torch.randn(1, 3, 2, 48, 48)
    net.train()
    logits = net(video)
    assert not torch.equal(logits, net(video))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_pixels_are_normalised_as_in_the_program():
    net, _ = loaded("c2d", ())
    video = torch.randint(0, 256, (1, 3, 2, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(net(video), net((video - 114.75) / 57.375))


def test_positions_stand_once_in_the_scope():
    net = AuthorsVideoNet("c2d", ("final",), width=2, heatmap_size=6)
    assert placements(net)["tower/positional_emb"].shape == (14, 36)


def test_new_weights_leave_the_pixels_of_the_program():
    net = AuthorsVideoNet("c2d", (), width=2)
    net.reset_parameters()
    torch.testing.assert_close(net.pixel_mean.flatten(), torch.full((3,), 0.45))
    torch.testing.assert_close(net.pixel_std.flatten(), torch.full((3,), 0.225))


def test_arguments_are_checked():
    for kwargs, match in (
        ({"form": "s3d"}, "'form' to be one of 'c2d', 'i3d', got 's3d'"),
        ({"places": ("res6",)}, r"'places' to hold each of 'res2', .*, 'final' at most once, got \['res6'\]"),
        ({"places": ("res3", "res3")}, r"at most once, got \['res3', 'res3'\]"),
        ({"places": ("res3", "res4"), "heatmap_size": 6}, "'heatmap_size' to be None with several places, got 6"),
        ({"num_classes": 0}, "'num_classes' to be a positive int, got 0"),
    ):
        with pytest.raises(ValueError, match=match):
            AuthorsVideoNet(**({"width": 2} | kwargs))
    with pytest.raises(ValueError, match=r"'name' to be one of 'c2d', 'c2d_rstg', .*, got 'non-local'"):
        AuthorsVideoNet.published("non-local")
    with pytest.raises(ValueError, match=r"video of shape \[B, 3, T, H, W\].*, got \[1, 1, 4, 48, 48\]"):
        AuthorsVideoNet("c2d", (), width=2)(torch.randn(1, 1, 4, 48, 48))
