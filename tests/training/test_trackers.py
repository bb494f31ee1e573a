"""A run's numbers reach the trackers, and a tracker's trouble never reaches the run."""

import json
import logging
import sys

import pytest

from distill3d.errors import ConfigError, Distill3dError, MissingExtraError, UnknownNameError
from distill3d.training.trackers import Trackers, flat, open_trackers

CONFIG = {"style": "zombie", "lr": 8e-3, "weights": None, "options": {"rank": True}}


def events(folder):
    """Everything that TensorBoard would show of a folder: {name: [(step, value), ...]}, and its texts."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    scalars = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    texts = {tag: found.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"]}
    return scalars, texts


def test_what_is_logged_is_what_tensorboard_reads(tmp_path):
    pytest.importorskip("tensorboard")
    trackers = open_trackers(["tensorboard"], tmp_path, CONFIG)
    for step in range(3):
        trackers.log({"loss": 1.5 - step, "skipped": step == 1, "figures": {"score/rms": step / 4}, "no": None}, step)
    trackers.close()
    scalars, texts = events(tmp_path / "tensorboard")
    assert scalars == {
        "loss": [(0, 1.5), (1, 0.5), (2, -0.5)],
        "skipped": [(0, 0.0), (1, 1.0), (2, 0.0)],
        "figures/score/rms": [(0, 0.0), (1, 0.25), (2, 0.5)],
    }
    (text,) = texts.values()
    assert "style: zombie" in text
    assert "weights" not in text


def test_steps_that_are_taken_again_after_a_resume_are_there_once(tmp_path):
    pytest.importorskip("tensorboard")
    for first, value in ((0, 1.0), (2, 7.0)):
        trackers = open_trackers(["tensorboard"], tmp_path, CONFIG, step=first)
        for step in range(first, 4):
            trackers.log({"loss": value}, step)
        trackers.close()
    scalars, _ = events(tmp_path / "tensorboard")
    assert scalars["loss"] == [(0, 1.0), (1, 1.0), (2, 7.0), (3, 7.0)]


def test_nothing_is_opened_and_nothing_imported_for_no_names(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    trackers = open_trackers([], tmp_path, CONFIG)
    trackers.log({"loss": 1.0}, 0)
    trackers.close()
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_answered_with_those_that_are_known(tmp_path):
    pytest.importorskip("accelerate")
    with pytest.raises(UnknownNameError, match=r"'tensorbord'.*tensorboard, .*wandb\. Did you mean 'tensorboard'\?"):
        open_trackers(["tensorbord"], tmp_path, CONFIG)


def test_without_accelerate_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setitem(sys.modules, "accelerate.tracking", None)
    with pytest.raises(MissingExtraError, match=r"distill3d\[track\]"):
        open_trackers(["tensorboard"], tmp_path, CONFIG)


def test_without_a_trackers_own_package_it_is_said_which(tmp_path, monkeypatch):
    tracking = pytest.importorskip("accelerate.tracking")
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(MissingExtraError, match=r"'tensorboard'.*distill3d\[track\]"):
        open_trackers(["tensorboard"], tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="pip install wandb"):
        open_trackers(["wandb"], tmp_path, CONFIG)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    with pytest.raises(Distill3dError, match="Cannot write"):
        open_trackers(["tensorboard"], tmp_path, CONFIG)


class Recorder:
    """A tracker that writes down what it is told, and fails at a step."""

    requires_logging_directory = False

    def __init__(self, project="", fails_at=None, **options):
        self.project, self.fails_at, self.options, self.told = project, fails_at, options, []

    def store_init_configuration(self, values):
        self.told.append(values)

    def log(self, values, step):
        if step == self.fails_at:
            raise ConnectionError("no way out")
        self.told.append((step, values))

    def finish(self):
        self.told.append("finished")


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(caplog):
    broken, good = Recorder(fails_at=1), Recorder()
    trackers = Trackers({"broken": broken, "good": good})
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            trackers.log({"loss": 1.0}, step)
    trackers.close()
    assert [r.getMessage() for r in caplog.records] == [
        "Tracker broken fails and is left out from here on: no way out. metrics.jsonl goes on."
    ]
    assert broken.told == [(0, {"loss": 1.0})]
    assert good.told == [(0, {"loss": 1.0}), (1, {"loss": 1.0}), (2, {"loss": 1.0}), "finished"]


def test_a_run_at_weights_and_biases_has_the_folders_name_and_plain_settings(tmp_path, monkeypatch):
    tracking = pytest.importorskip("accelerate.tracking")
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["wandb"])
    opened = open_trackers(["wandb", "wandb"], tmp_path / "zombie-tiny", CONFIG).trackers
    assert opened["wandb"].project == "distill3d"
    assert opened["wandb"].options == {"name": "zombie-tiny", "dir": str(tmp_path / "zombie-tiny")}
    assert opened["wandb"].told == [{"style": "zombie", "lr": 8e-3, "options": "{'rank': True}"}]
    assert json.dumps(opened["wandb"].told)


def test_names_of_inner_values_are_joined_by_slashes():
    assert dict(flat({"a": 1, "b": {"c": 2.5, "d": {"e": True}}, "f": "text"})) == {"a": 1.0, "b/c": 2.5, "b/d/e": 1.0}
