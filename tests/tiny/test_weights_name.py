"""What others can get the embedded generator's weights by."""

import pytest
import torch

from distill3d.errors import WeightsError
from distill3d.plugins import registry
from distill3d.tiny.generator import EMBEDDED, WEIGHTS, load_tiny, save_tiny


def test_the_embedded_weights_have_a_name_that_brings_them_back():
    default = load_tiny()
    assert default.weights_name == EMBEDDED == "embedded"
    again = registry().find("backbone", "tiny").load()(default.weights_name)
    assert again.weights_name == EMBEDDED
    assert all(torch.equal(value, default.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_file_of_the_user_s_has_no_such_name(tmp_path, monkeypatch):
    save_tiny(load_tiny(), tmp_path / EMBEDDED)
    assert load_tiny(str(tmp_path / EMBEDDED)).weights_name == ""
    assert load_tiny(str(WEIGHTS)).weights_name == EMBEDDED
    monkeypatch.chdir(tmp_path)
    assert load_tiny(f"./{EMBEDDED}").weights_name == ""


def test_without_the_embedded_file_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("distill3d.tiny.generator.WEIGHTS", tmp_path / "none.safetensors")
    for given in (None, EMBEDDED):
        with pytest.raises(WeightsError, match="Reinstall distill3d"):
            load_tiny(given)
