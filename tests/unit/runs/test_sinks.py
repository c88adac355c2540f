import sys
from pathlib import Path

import pytest

from heed.errors import MissingExtra
from heed.runs.run import Run
from heed.runs.sinks import TensorBoardSink
from heed.settings import RunSettings


def test_tensorboard_without_its_package_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(MissingExtra, match=r"pip install 'heed-rlhf\[track\]'"):
        TensorBoardSink(tmp_path)


def test_tensorboard_gets_every_metric_that_is_known(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    settings = RunSettings(folder=str(tmp_path / "r"))
    with Run.start(settings, "sft", {}, {}, [TensorBoardSink(tmp_path / "tb")]) as run:
        run.log(1, {"loss": 0.5, "perplexity": None})
        run.log(2, {"loss": 0.25})
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    read = [(e.step, float(make_ndarray(e.tensor_proto))) for e in events.Tensors("loss")]
    assert read == [(1, 0.5), (2, 0.25)]
    assert "perplexity" not in events.Tags()["tensors"]
