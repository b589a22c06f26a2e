"""A run ends by signals and with its other processes, whatever its main thread waits for."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from rstg_pyg.training import ending
from rstg_pyg.training.ending import ends_by_signals, ends_together

PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture
def start():
    """Run a function in a process of its own; return it, and a connection that ends with the last process of its."""
    started = []

    def run(function):
        alive, held = PROCESSES.Pipe(duplex=False)
        started.append(PROCESSES.Process(target=function))
        started[-1].start()
        held.close()
        return started[-1], alive

    yield run
    for process in started:
        process.kill()


def wait_for_end(alive):
    assert alive.poll(20)
    with pytest.raises(EOFError):
        alive.recv()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_process_that_waits_for_ever_and_its_workers(start, capfd, number, code):
    ready, told = PROCESSES.Pipe(duplex=False)

    def wait():
        with ends_by_signals("stopped"), ends_by_signals("within another"):
            PROCESSES.Process(target=time.sleep, args=(60,)).start()
            # As Lightning does, which then waits for other processes.
            signal.signal(signal.SIGTERM, lambda *_: time.sleep(60))
            told.send("ready")
            threading.Event().wait(60)

    process, alive = start(wait)
    ready.recv()
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == code
    wait_for_end(alive)
    assert capfd.readouterr().err == "\nstopped\n"


def test_signals_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ends_by_signals():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert signal.getsignal(signal.SIGTERM) is before[1]
    assert signal.set_wakeup_fd(-1) == -1


def trainer(*others):
    launcher = SimpleNamespace(procs=list(others), num_processes=2)
    return SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))


GLOO = RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer")


@pytest.mark.parametrize(
    ("end", "error", "code", "words"),
    [
        ("kill -9 $$", None, 137, "process 1 of the run ended by signal 9 (Killed); the same command goes on"),
        ("kill -9 $$", GLOO, 137, "process 1 of the run ended by signal 9 (Killed); the same command goes on"),
        ("kill -15 $$", None, 143, "stopped; the same command goes on"),
        ("exit 143", None, 143, "stopped; the same command goes on"),
        ("exit 2", None, 2, "process 1 of the run ended with code 2"),
        ("exit 2", ValueError("of its own"), 3, "of its own"),
        ("sleep 60", GLOO, 3, f"expected all processes of the run to go on, got one out of reach ({GLOO})"),
    ],
)
def test_the_first_process_ends_with_another(start, capfd, monkeypatch, end, error, code, words):
    monkeypatch.setattr(ending, "GRACE", 0.5)

    def run():
        other = subprocess.Popen(["sh", "-c", end])
        try:
            with ends_together(trainer(other)):
                if error is not None:
                    raise error
                time.sleep(60)
        except (RuntimeError, ValueError) as raised:
            other.kill()
            print(raised, file=sys.stderr)
            sys.exit(3)

    process, _ = start(run)
    process.join(20)
    assert process.exitcode == code
    assert capfd.readouterr().err.strip() == words


def test_other_processes_end_with_the_first(start, capfd):
    ready, told = PROCESSES.Pipe(duplex=False)

    def other():
        os.environ["LOCAL_RANK"] = "1"
        with ends_together(trainer()):
            told.send("ready")
            time.sleep(60)

    def first():
        with ends_together(trainer()):
            PROCESSES.Process(target=other).start()
            time.sleep(60)

    process, alive = start(first)
    ready.recv()
    process.kill()
    wait_for_end(alive)
    assert capfd.readouterr().err.strip() == "the first process of the run ended; the same command goes on"
    assert ending.FIRST_PROCESS not in os.environ
