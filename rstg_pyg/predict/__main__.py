"""The command ``python -m rstg_pyg.predict VIDEO --checkpoint FILE``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rstg_pyg.predict.predictor import Predictor
from rstg_pyg.predict.source import VideoSource, square_box
from rstg_pyg.predict.stream import Prediction
from rstg_pyg.predict.writing import check_output, write_video
from rstg_pyg.visualize.overlay import VideoOverlay

_DESCRIPTION = """Say what happens in a video, by a network trained on Something-Something.

Frame-wise networks (c2d, c2d+rstg:vec) carry a recurrent state from frame to frame. The others look at later frames: a
window slides over the video, and the answer is the mean of the windows' logits. With --whole, any of them sees as many
frames as in training, spread over the video: what the evaluation says of it."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m rstg_pyg.predict",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("video", help="a file, or a folder of numbered frames such as 00001.jpg")
    made.add_argument("--checkpoint", required=True, metavar="FILE", help="weights.pt or last.ckpt of a run")
    made.add_argument("--top", type=int, default=5, metavar="N", help="classes to name (default: 5)")
    made.add_argument("--out", metavar="FILE", help="draw regions, attention and classes into a .webm, .mp4 or .gif")
    made.add_argument("--whole", action="store_true", help="one clip spread over the video, as in the evaluation")
    made.add_argument(
        "--frames-per-second",
        type=float,
        metavar="F",
        help="frames a second that the network looks at (default: a clip's frames in 4 seconds)",
    )
    made.add_argument("--window", type=int, metavar="T", help="frames of a window (default: those of a clip)")
    made.add_argument("--stride", type=int, metavar="S", help="frames to the next window (default: half a window)")
    made.add_argument(
        "--source-rate",
        type=float,
        metavar="R",
        help="frames a second of the video, each taken once (default: by their times; 12 for folders)",
    )
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        result = run(args)
    except (ValueError, OSError, ImportError) as error:
        # One sentence, whatever a library wrote.
        print(f"predict: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that its encoding does not have
    print(json.dumps(result, allow_nan=False) if args.json else _text(result))
    return 0


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the command line asks for, and return what it prints."""
    _check(args)
    source = VideoSource(args.video, args.source_rate)
    predictor = Predictor.from_checkpoint(args.checkpoint, args.device)
    if args.whole:
        predictions = predictor.whole(source)
    else:
        predictions = predictor.stream(
            source,
            source_rate=source.rate,
            frames_per_second=args.frames_per_second,
            window=args.window,
            stride=args.stride,
        )
    seen: deque[Prediction] = deque(maxlen=1)
    passing = (seen.append(each) or each for each in predictions)
    if args.out is None:
        deque(passing, maxlen=0)
    else:
        write_video(args.out, _drawn(passing, predictor, args.top), source.rate)
    (last,) = seen
    logits = last.logits
    if logits is not None and not logits.isfinite().all():
        raise ValueError(f"expected finite answers of the network in {args.checkpoint}, got others: it overflows")
    mode = "whole" if args.whole else "stream" if predictor.carries_state else "windows"
    return {
        "video": os.fspath(args.video),
        "mode": mode,
        "frames": last.index + 1,
        "predictions": [{"class": name, "probability": value} for name, value in last.top(args.top)],
        **({} if args.out is None else {"out": os.fspath(args.out)}),
    }


def _drawn(predictions: Iterable[Prediction], predictor: Predictor, rows: int) -> Iterator[np.ndarray]:
    overlay = None
    for prediction in predictions:
        height, width = prediction.frame.shape[:2]
        if overlay is None:
            box = square_box(height, width, predictor.size)
            overlay = VideoOverlay((height, width), predictor.graph, box, min(rows, len(predictor.classes)))
        yield overlay.draw(prediction.frame.numpy(), prediction.top(rows), prediction.attention)


def _check(args: argparse.Namespace) -> None:
    if args.top < 1:
        raise ValueError(f"expected --top to be at least 1, got {args.top}")
    given = [name for name in ("frames_per_second", "window", "stride") if getattr(args, name) is not None]
    if args.whole and given:
        raise ValueError(f"expected --whole alone, got --{given[0].replace('_', '-')} too: it sets what is looked at")
    if args.out is not None:
        check_output(args.out)
        if os.path.exists(args.out) and os.path.exists(args.video) and os.path.samefile(args.out, args.video):
            raise ValueError(f"expected --out to be another file than the video, got {args.out}")


_MODES = {
    "stream": "frame by frame, with a recurrent state",
    "windows": "the mean of sliding windows",
    "whole": "one clip spread over the video, as in the evaluation",
}


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['video']}: {result['frames']:,} frames, {_MODES[result['mode']]}"]
    lines += [f"{100 * said['probability']:6.2f} %  {said['class']}" for said in result["predictions"]]
    return "\n".join([*lines, f"wrote {result['out']}"] if "out" in result else lines)


if __name__ == "__main__":
    sys.exit(main())
