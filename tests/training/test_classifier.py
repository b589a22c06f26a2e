"""What the classifier minimises, measures and refuses."""

import dataclasses

import lightning
import pytest
import torch
from small_runs import RECIPE, fit, model, trainer_of
from torch.utils.data import Dataset
from torch_geometric.data import Batch

from rstg_pyg.training import ClipClassifier, DivergenceError, Phase, RunData, SyncMNISTData, evaluate, read_checkpoint
from rstg_pyg.training.classifier import clip_loss


def test_the_loss_asks_for_the_pair_or_whether_there_is_one():
    logits = torch.randn(4, 46, dtype=torch.float64)
    label, binary = torch.tensor([3, 3, 45, 45]), torch.tensor([False, True, False, True])
    p = logits.softmax(1)
    expected = -torch.stack([p[0, 3], p[1, :45].sum(), p[2, 45], p[3, 45]]).log()
    torch.testing.assert_close(clip_loss(logits, label, binary), expected)
    plain = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    torch.testing.assert_close(clip_loss(logits, label, torch.zeros(4, dtype=torch.bool)), plain)


def test_the_learning_rate_rises_and_falls():
    module = ClipClassifier(model(), dataclasses.replace(RECIPE, phases=(Phase(1000),), warmup=0.1))
    steps = module.recipe.num_steps
    factors = [module._learning_rate_factor(step) for step in range(steps + 1)]
    peak = factors.index(max(factors))
    assert 0.05 * steps < peak < 0.15 * steps
    assert factors[peak] > 0.9
    assert factors[0] < 0.05
    assert factors[-1] == 0
    constant = ClipClassifier(model(), dataclasses.replace(RECIPE, schedule="constant"))
    assert {constant._learning_rate_factor(step) for step in range(10)} == {1.0}


def test_raw_pixels_take_the_type_of_the_weights():
    module = ClipClassifier(torch.nn.Flatten(), dataclasses.replace(RECIPE, raw_pixels=True))
    video = torch.full((1, 1, 1, 1, 2), 255, dtype=torch.uint8)
    assert torch.equal(module(video), torch.full((1, 2), 255.0))
    module.model.part = torch.nn.Linear(2, 2, dtype=torch.float64)
    assert module(video).dtype == torch.float64


class Spoil(lightning.Callback):
    """Make one parameter, one gradient or one video of a step NaN."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step and self.what == "loss":
            batch.video = batch.video * torch.nan

    def on_after_backward(self, trainer, module):
        if trainer.global_step == self.step and self.what == "gradient":
            module.model.classifier[1].bias.grad[3] = torch.nan

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step - 1 == self.step and self.what == "buffer":
            module.model.register_buffer("unused", torch.tensor([1.0, torch.inf]))


ADVICE = r"lower the learning rate \(0\.003\) or use float32; the last checkpoint is intact"


def result_of(logits, label, valid):
    """Test answers that are given, four clips at a time; return the result and the loss."""

    class Clips(Dataset):
        def __getitem__(self, index):
            part = list(index)
            return Batch(video=logits[part], y=label[part], valid=valid[part])

    data = RunData(RECIPE)
    data.testing = lambda: (Clips(), len(label), 4)
    module = ClipClassifier(torch.nn.Identity(), RECIPE)
    result = evaluate(module, data, "cpu")
    return result, float(module.trainer.callback_metrics["test_loss"])


def test_means_are_those_of_all_answers_that_count_whatever_the_batches():
    for classes in (3, 5, 9):
        logits, label, valid = torch.randn(23, classes), torch.randint(classes, (23,)), torch.rand(23) < 0.7
        # A batch of which none counts.
        valid[8:12] = False
        result, loss = result_of(logits, label, valid)
        logits, label = logits[valid], label[valid]
        ranks = (logits > logits.gather(1, label[:, None])).sum(1)
        assert result.test_accuracy == pytest.approx((ranks == 0).double().mean().item(), abs=1e-7)
        assert result.top5_accuracy == pytest.approx((ranks < 5).double().mean().item(), abs=1e-7)
        assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, label).item(), rel=1e-5)
        assert result.confusion.sum(1).tolist() == label.bincount(minlength=classes).tolist()
        assert result.confusion.sum(0).tolist() == logits.argmax(1).bincount(minlength=classes).tolist()


def test_answers_without_a_label_are_not_counted():
    with pytest.raises(ValueError, match="expected labels to count answers by, got -1: the test split is published"):
        result_of(torch.zeros(2, 3), torch.tensor([1, -1]), torch.tensor([True, True]))


@pytest.mark.parametrize(
    ("step", "what", "message", "clip"),
    [
        # Chunks end after steps 2, 5 and 8.
        (4, "loss", f"expected a finite loss, got nan at step 4: {ADVICE}", 1.0),
        (5, "loss", f"expected a finite loss, got nan at step 5: {ADVICE}", None),
        (8, "loss", f"expected a finite loss, got nan at step 8: {ADVICE}", 1.0),
        (3, "gradient", f"expected a finite loss, got nan at step 4: {ADVICE}", None),
        (
            5,
            "gradient",
            rf"expected finite weights, got others in \d+ tensor\(s\) after step 5, first in .*: {ADVICE}",
            1.0,
        ),
        (
            5,
            "buffer",
            r"got others in 1 tensor\(s\) after step 5, first in model\.unused: lower the learning rate",
            1.0,
        ),
    ],
)
def test_a_run_that_diverges_stops_before_it_spoils_the_checkpoint(tmp_path, step, what, message, clip):
    recipe = dataclasses.replace(RECIPE, gradient_clip=clip)
    with pytest.raises(DivergenceError, match=message):
        fit(tmp_path, recipe, callbacks=[Spoil(step, what)])
    steps = 6 if step > 5 else 3
    checkpoint = read_checkpoint(tmp_path / "last.ckpt", ClipClassifier(model(), recipe))
    assert checkpoint["global_step"] == steps
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_a_run_that_diverges_at_once_leaves_no_checkpoint(tmp_path):
    net = model()
    with torch.no_grad():
        net.classifier[1].weight.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=f"expected a finite loss, got nan at step 0: {ADVICE}"):
        fit(tmp_path, net=net)
    assert not list(tmp_path.glob("*.ckpt*"))


class Constant(torch.nn.Module):
    """Answers that say the label 45 with a fixed certainty."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(45), 46).float())

    def forward(self, video):
        return self.logits.expand(len(video), 46)


def test_tests_count_every_clip_once_whatever_the_batches(tmp_path):
    task = Phase(30, num_digits=2, no_sync_probability=0.5)
    recipe = dataclasses.replace(RECIPE, phases=(task,), test_clips=29, val_clips=13)
    module, trainer = ClipClassifier(Constant(), recipe), trainer_of(tmp_path, recipe)
    data = SyncMNISTData(tmp_path, recipe, digits="sklearn")
    tested = trainer.test(module, data, verbose=False)[0]
    labels = torch.cat([clip.y for clip in (data.test_clips[i] for i in range(29))])
    assert 0 < (labels == 45).sum() < 29
    assert tested["test_accuracy"] == pytest.approx((labels == 45).double().mean().item(), abs=1e-7)
    expected = torch.nn.functional.cross_entropy(module.model(labels).double(), labels)
    assert tested["test_loss"] == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(module.confusion[:, 45], labels.bincount(minlength=46))
    assert module.confusion.sum() == 29

    validated = trainer.validate(module, data, verbose=False)[0]
    labels = torch.cat([data.train_clips[i].y for i in range(30, 43)])
    assert validated["val_accuracy"] == pytest.approx((labels == 45).double().mean().item(), abs=1e-7)


def test_bfloat16_trains_float32_weights(tmp_path):
    before = {name: value.clone() for name, value in model().named_parameters()}
    module = fit(tmp_path, dataclasses.replace(RECIPE, optimizer="muon-hidden"), precision="bf16-mixed", max_epochs=1)
    assert module.trainer.callback_metrics["loss"].isfinite()
    weights = dict(module.model.named_parameters())
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert all(value.isfinite().all() for value in weights.values())
    assert sum(not torch.equal(before[name], value) for name, value in weights.items()) > len(weights) / 2


def test_settings_that_no_file_can_hold():
    with pytest.raises(
        ValueError, match="expected 'config' to hold dicts, lists, strings and finite numbers, got: Object of "
    ):
        ClipClassifier(model(), RECIPE, {"model": model()})


class Watch(torch.nn.Module):
    """Answers that do not depend on the clips, which it keeps."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.arange(46) / 10)
        self.seen = []

    def forward(self, video):
        if self.training:
            self.seen.append(video)
        else:
            self.tested = video
        return self.logits.expand(len(video), 46)


class KeepLosses(lightning.Callback):
    """Keep every step's loss, and what it should be of the curriculum's labels."""

    def __init__(self, clips):
        self.clips, self.got, self.expected = clips, [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        start = sum(map(len, module.model.seen))
        clips = [self.clips[i] for i in range(start, start + batch.num_graphs)]
        y, binary = (torch.cat([clip[name] for clip in clips]) for name in ("y", "binary"))
        self.expected.append(clip_loss(module.model.logits.detach().expand(len(y), 46), y, binary).mean())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.got.append(outputs["loss"].detach())


def test_clips_are_reversed_in_time_and_keep_their_labels(tmp_path):
    recipe = dataclasses.replace(RECIPE, optimizer="adamw", augment="reverse")
    data = SyncMNISTData(tmp_path, recipe, digits="sklearn")

    def backwards(seed, folder="run", **options):
        torch.manual_seed(seed)
        net, keep = Watch(), KeepLosses(data.train_clips)
        fit(tmp_path / folder, recipe, net=net, callbacks=[] if "checkpoint" in options else [keep], **options)
        torch.testing.assert_close(keep.got, keep.expected)
        last = data.train_clips.datasets[-1]
        assert torch.equal(net.tested, torch.cat([last[i].video for i in (34, 35)]))
        return net.seen

    videos = backwards(0)
    flips = []
    for i, video in enumerate(torch.cat(videos).split(1)):
        as_it_is = data.train_clips[i].video
        flips.append(torch.equal(video, as_it_is.flip(2)))
        assert flips[-1] != torch.equal(video, as_it_is)
    assert 5 < sum(flips) < 25
    assert all(map(torch.equal, backwards(0), videos))
    assert not all(map(torch.equal, backwards(1), videos))
    begun = backwards(0, "broken", max_epochs=1)
    begun += backwards(5, "broken", checkpoint=tmp_path / "broken" / "last.ckpt")
    assert all(map(torch.equal, begun, videos))
