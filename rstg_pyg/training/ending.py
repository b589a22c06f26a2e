"""How a run ends before its end: by a signal, or because another of its processes ended. Being killed at any moment
does a run no harm, so neither waits for a step, for another process, or for what a library does about signals."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import lightning
import torch

GOES_ON = "the same command goes on"
STOPPED = f"stopped; {GOES_ON}"
GRACE = 2.0
"""Seconds that a process has to end by an error of its own, after another one ended."""
FIRST_PROCESS = "RSTG_PYG_FIRST_PROCESS"
"""Environment variable: the process that started this one as a part of its run."""

_ending = threading.Lock()
_words: list[str] = []
"""What is said after a signal, while they are listened to."""
_others: list[subprocess.Popen] = []
"""The other processes of the run, in the one that started them."""


def end_process(code: int, words: str = "") -> NoReturn:
    """Say ``words`` and end this process and those that it started, whatever its main thread waits for."""
    # Never released: whoever comes second waits for the end.
    _ending.acquire()
    if words:
        # A progress bar may stand in the line.
        print(f"\n{words}", file=sys.stderr, flush=True)
    for process in (*_others, *multiprocessing.active_children()):
        process.kill()
    os._exit(code)


@contextmanager
def ends_by_signals(words: str = STOPPED) -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM end this process at once, with exit code 130 or 143; the first process of a
    run says ``words``.

    A signal that this process was started to ignore stays ignored. Within another one, or outside the main thread, it
    changes nothing.
    """
    if _words or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    heard, told = socket.socketpair()
    told.setblocking(False)

    def wait() -> None:
        while number := heard.recv(1)[0]:
            if number in numbers:
                end_process(128 + number, words * (os.environ.get("LOCAL_RANK", "0") == "0"))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    # A handler runs in the main thread, which may wait in a library for ever; a signal's number is written at once,
    # also when Lightning puts a handler of its own in the place.
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    _words.append(words)
    try:
        yield
    finally:
        _words.pop()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        told.send(b"\0")
        thread.join()
        heard.close()
        told.close()


@contextmanager
def ends_together(trainer: lightning.Trainer) -> Iterator[None]:
    """While it lasts, this process ends within seconds of any other one of its run, with a word on which that was, and
    by signals as :func:`ends_by_signals` says: Lightning's way with them waits for the other processes.

    It is about processes that ``trainer`` starts itself; torchrun and SLURM see to their own.
    """
    launcher = trainer.strategy.launcher
    if not hasattr(launcher, "procs"):
        yield
        return
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    parent = None if first else os.environ.get(FIRST_PROCESS)
    if first:
        os.environ[FIRST_PROCESS] = str(os.getpid())
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            if parent is not None and os.getppid() != int(parent):
                end_process(1, f"the first process of the run ended; {GOES_ON}")
            if len(launcher.procs) == launcher.num_processes - 1:
                # Lightning, which would kill this process without a word, is left none to watch.
                _others.extend(launcher.procs)
                launcher.procs.clear()
            for rank, process in enumerate(_others, 1):
                if process.poll() and not done.wait(GRACE):
                    end_process(*_of_ended(rank, process.returncode))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        with ends_by_signals():
            yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        # That another process is gone was noticed here first; the watch knows which.
        thread.join(2 * GRACE)
        raise RuntimeError(f"expected all processes of the run to go on, got one out of reach ({error})") from None
    finally:
        done.set()
        if first:
            del os.environ[FIRST_PROCESS]


def _of_ended(rank: int, code: int) -> tuple[int, str]:
    """The exit code and the words of a run whose process ``rank`` ended with ``code``, as Popen counts."""
    number = -code if code < 0 else code - 128
    if number in (signal.SIGINT, signal.SIGTERM):
        return 128 + number, (_words or [STOPPED])[-1]
    ended = f"process {rank} of the run ended"
    if code < 0:
        return 128 + number, f"{ended} by signal {number} ({signal.strsignal(number)}); {GOES_ON}"
    return code, f"{ended} with code {code}"
