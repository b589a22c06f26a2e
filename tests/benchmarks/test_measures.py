"""Times, memory, the bound and the goals are what they are said to be."""

import pytest
import torch
from bound import BOUND, FASTEST, products
from compare import Row
from goals import CUDA_GOALS, GOALS, Goal, Measured, stage_values, stream_peak
from measure import Work, median_ratio, peak_bytes, quartiles, saved_bytes, time_interleaved
from problem import Problem, grid_graph

KB = 1000


def floats(kilobytes):
    return torch.empty(kilobytes * KB // 4)


def test_peak_of_a_call_that_can_be_calculated():
    before = floats(40)

    def run():
        nonlocal before
        a = floats(8)
        b = floats(4)
        torch.neg(a, out=floats(8))  # 20 kB at once, 12 after it
        before = None  # what was there before does not count
        del a
        c = floats(12)  # 16
        return b, c

    assert peak_bytes(run, "cpu") == 20 * KB
    # Temporaries within an operator count.
    x = torch.randn(100, 10, requires_grad=True)
    # The product and the sum after it, or in the backward pass two gradients; a few scalars beside them.
    assert 2 * 4 * KB <= peak_bytes(lambda: (x * 2 + 1).sum().backward(), "cpu") <= 2 * 4 * KB + 64


def test_gradients_of_parameters_can_be_left_out():
    linear = torch.nn.Linear(100, 50, bias=False)
    x, gradient = torch.randn(10, 100), torch.randn(10, 50)

    def run():
        linear(x).backward(gradient)

    linear.zero_grad(set_to_none=True)
    run()
    linear.zero_grad(set_to_none=True)
    assert peak_bytes(run, "cpu", lambda: [linear.weight.grad]) == 4 * 10 * 50
    linear.zero_grad(set_to_none=True)
    assert peak_bytes(run, "cpu") == 4 * (10 * 50 + 100 * 50)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_peak_on_cuda_is_that_of_the_allocator():
    x = torch.randn(1000, 256, device="cuda")

    def run():
        return (x * 2).relu()

    run()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    assert peak_bytes(run, "cuda") == torch.cuda.max_memory_allocated() - before


def test_saved_bytes_counts_each_storage_once():
    weight = torch.randn(20, 10, requires_grad=True)
    x = torch.randn(30, 10, requires_grad=True)

    def run():
        y = x @ weight.t()  # keeps x (and the weight)
        return y.relu() * y.view(-1, 20)  # keeps the result of relu and y

    assert saved_bytes(run, [weight]) == 4 * (30 * 10 + 2 * 30 * 20)


def test_memory_of_a_stream_does_not_grow():
    assert stream_peak(8, 12, "cpu") == stream_peak(8, 3, "cpu") > 0


def test_works_take_turns():
    calls = []
    works = {
        name: Work(lambda name=name: calls.append(name), lambda name=name: calls.append(f"before {name}"))
        for name in ("a", "b")
    }
    ticks = []
    times = time_interleaved(works, rounds=2, calls=2, device="cpu", tick=lambda: ticks.append(1))
    turn = ["before a", "a"] * 3 + ["before b", "b"] * 3
    assert calls == turn * 2
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert len(ticks) == 4
    # What is made of times.
    assert quartiles([1, 2, 3, 4, 5]) == (2, 3, 4)
    assert quartiles([7]) == (7, 7, 7)
    assert median_ratio([2, 40, 9], [1, 10, 3]) == 3


def test_units_of_the_bound():
    def units(**options):
        problem = Problem(grid_graph((3, 2, 1)), 4, 2, 5, **options)
        multiplications = sum(one.count * one.rows * one.fan_in * one.fan_out for one in products(problem))
        return multiplications / (problem.num_frames * problem.width**2)

    assert units() == 112
    assert units(relu_last=True) == 188
    assert units(num_stages=3) == 3 * 112 + 4 * 112


def test_goals_are_judged_by_their_direction_and_their_table_says_what_is_missed():
    assert Goal("a", "", 2, at_least=True).met(2.5)
    assert not Goal("a", "", 2).met(2.5)
    assert len({goal.key for goal in GOALS}) == len(GOALS)
    first, second = GOALS[:2]
    *lines, empty, summary = Measured(values={first.key: first.required, second.key: 0.0}).table().splitlines()
    assert lines[2] == f"| {first.text} | at least 5 | 5.00 | yes |"
    assert lines[3].endswith("| 0.00 | **no** |")
    assert sum("not measured" in line for line in lines) == len(GOALS) - 2
    assert lines[-1].startswith(f"| {CUDA_GOALS[-1].text}")
    assert (empty, summary) == ("", f"1 of 2 measured goals is met; missed: {second.text}.")
    compiled = Measured(values={first.key: 6.0}, compiled={first.key: 7.0}).table().splitlines()
    assert compiled[2].endswith("| 6.00 | yes | 7.00 |")
    assert compiled[-1] == "1 of 1 measured goals is met."


def test_a_stage_is_held_against_the_faster_bound():
    problem = Problem(grid_graph((3, 2, 1)), 64, 16, 10)
    times = {"rstg-auto": 6.0, "plain": 12.0, "gatv2": 3.0, BOUND: 4.0, FASTEST: 2.0}
    rows = [Row(problem, True, name, [time]) for name, time in times.items()]
    assert stage_values(rows, "rstg-auto") == {"default-64-plain": 2, "default-64-bound": 3, "default-64-gatv2": 2}
    of_one_library = [row for row in rows if row.name != FASTEST]
    assert stage_values(of_one_library, "rstg-auto")["default-64-bound"] == 1.5
