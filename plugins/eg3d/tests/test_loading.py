"""From a file or a name to a renderer; what cannot be loaded says why and what to do."""

import http.server
import json
import threading
from dataclasses import replace

import pytest
import torch
from heads import blob, write_pickle
from safetensors.torch import save_file
from typer.testing import CliRunner

import distill3d_eg3d.known as known
from distill3d.errors import UnknownNameError, WeightsError
from distill3d.plugins import registry
from distill3d_eg3d.architecture import Architecture
from distill3d_eg3d.checkpoint import Checkpoint, convert, load, save
from distill3d_eg3d.cli import app
from distill3d_eg3d.download import download
from distill3d_eg3d.loading import load_eg3d, load_generator, load_panohead


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "eg3d"


@pytest.fixture(scope="module")
def originals():
    return {"eg3d": blob(), "panohead": blob(panohead=True)}


def same_weights(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("family", ["eg3d", "panohead"])
def test_an_official_checkpoint_is_converted_once_and_loads_with_every_tensor(family, originals, tmp_path, cache):
    source = tmp_path / "network.pkl"
    write_pickle(originals[family], source)
    renderer = load_generator(str(source), family=family)
    assert same_weights(renderer, originals[family])
    assert renderer.architecture == originals[family].architecture
    (converted,) = (cache / "converted").iterdir()
    written = converted.stat().st_mtime_ns
    assert same_weights(load_generator(str(source), family=family), originals[family])
    assert converted.stat().st_mtime_ns == written


def test_a_converted_file_says_where_it_comes_from(originals, tmp_path):
    source, target = tmp_path / "network.pkl", tmp_path / "out" / "network.safetensors"
    write_pickle(originals["eg3d"], source)
    made = convert(source, target)
    found = load(target)
    assert found.source == "network.pkl"
    assert len(found.source_sha256) == 64
    assert "NVIDIA" in found.licence
    assert found.architecture == made.architecture
    assert load_eg3d(str(target)).weights_licence == found.licence
    assert [p.name for p in target.parent.iterdir()] == ["network.safetensors"]


def test_a_bad_pickle_writes_nothing(tmp_path):
    source, target = tmp_path / "network.pkl", tmp_path / "out.safetensors"
    source.write_bytes(b"\x80\x04cos\nsystem\n\x8c\x04true\x85R.")
    with pytest.raises(WeightsError, match="system"):
        convert(source, target)
    assert [p.name for p in tmp_path.iterdir()] == ["network.pkl"]


def test_a_checkpoint_is_not_overwritten_by_its_conversion(originals, tmp_path):
    source = tmp_path / "network.pkl"
    write_pickle(originals["eg3d"], source)
    before = source.read_bytes()
    for target in (source, tmp_path / "x.pth"):
        with pytest.raises(WeightsError, match=r"is written as \.safetensors"):
            convert(source, target)
    assert source.read_bytes() == before


def test_a_damaged_conversion_is_made_again(originals, tmp_path, cache):
    source = tmp_path / "network.pkl"
    write_pickle(originals["eg3d"], source)
    load_eg3d(str(source))
    (converted,) = (cache / "converted").iterdir()
    converted.write_bytes(converted.read_bytes()[:1000])
    assert same_weights(load_eg3d(str(source)), originals["eg3d"])


def test_the_live_options_count_and_not_those_that_training_began_with(originals, tmp_path):
    """The neural resolution of a checkpoint is in its attributes alone."""
    source = tmp_path / "network.pkl"
    faded = blob(neural_resolution=48)
    write_pickle(faded, source)
    assert load_eg3d(str(source)).raw_size == 48


def test_a_stylised_state_dict_loads_on_its_base(originals, tmp_path, cache):
    cache.mkdir(parents=True)
    write_pickle(originals["panohead"], cache / known.CHECKPOINTS["panohead-easy-khair-180"].file)
    tensors = dict(originals["panohead"].generator.state_dict())
    tensors |= {name: 1.01 * value for name, value in tensors.items() if name.endswith(".weight")}
    torch.save(tensors, tmp_path / "werewolf.pth")
    renderer = load_panohead(str(tmp_path / "werewolf.pth"))
    name = "superresolution.block0.conv0.weight"
    assert torch.equal(renderer.generator.state_dict()[name], tensors[name])
    torch.save({"G": tensors}, tmp_path / "nested.pth")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        load_panohead(str(tmp_path / "nested.pth"))


def test_a_state_dict_that_would_execute_something_is_refused(originals, tmp_path, cache):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    cache.mkdir(parents=True)
    write_pickle(originals["panohead"], cache / known.CHECKPOINTS["panohead-easy-khair-180"].file)
    torch.save({"weight": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        load_panohead(str(tmp_path / "hostile.pth"))
    assert not (tmp_path / "canary").exists()


def damaged(originals, change):
    renderer = originals["eg3d"]
    tensors = dict(renderer.generator.state_dict())
    change(tensors)
    return Checkpoint(renderer.architecture, tensors, "x.pkl", "0" * 64, "none")


KEY, FILTER = "decoder.net.0.weight", "superresolution.block1.conv0.resample_filter"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(KEY), f"lacks 1 tensors, the first is {KEY}"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 tensors too many, the first is extra"),
        (lambda t: t.update({KEY: torch.zeros(64, 31)}), r"is \(64, 31\), this model's is \(64, 32\)"),
        (lambda t: t.update({KEY: t[KEY] * float("nan")}), "not finite"),
        (lambda t: t.update({FILTER: t[FILTER] + 0.1}), "another filter"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, said, originals, tmp_path):
    save(damaged(originals, change), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=said):
        load_eg3d(str(tmp_path / "x.safetensors"))


def test_files_that_are_something_else_are_refused(originals, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    save(damaged(originals, lambda t: None), tmp_path / "heads.safetensors")
    with pytest.raises(WeightsError, match="distill3d eg3d convert"):
        load_eg3d(str(tmp_path / "other.safetensors"))
    with pytest.raises(WeightsError, match="is damaged"):
        load_eg3d(str(tmp_path / "cut.safetensors"))
    with pytest.raises(WeightsError, match="no weight file"):
        load_eg3d(str(tmp_path / "none.safetensors"))
    with pytest.raises(WeightsError, match="use --backbone eg3d"):
        load_panohead(str(tmp_path / "heads.safetensors"))
    with pytest.raises(WeightsError, match="Did you mean 'ffhqrebalanced512-128'"):
        load_eg3d("ffhqrebalanced512-182")


def test_an_architecture_goes_through_json_and_one_of_another_version_is_refused(originals):
    a = originals["panohead"].architecture
    stored = json.loads(json.dumps(a.plain()))
    assert Architecture.from_plain(stored) == a
    with pytest.raises(WeightsError, match="new_option"):
        Architecture.from_plain({**stored, "new_option": 1})


def test_without_weights_the_default_is_named_with_its_licence_and_how_to_get_it(cache):
    with pytest.raises(WeightsError, match="fetch ffhqrebalanced512-128 --accept-licence") as error:
        load_eg3d()
    assert str(cache / "ffhqrebalanced512-128.pkl") in str(error.value)
    assert "NVIDIA Source Code License" in str(error.value)
    with pytest.raises(WeightsError, match=r"easy-khair-180-gpc0\.8-trans10-025000\.pkl from https") as error:
        load_panohead()
    assert str(cache) in str(error.value)


@pytest.mark.parametrize("family", ["eg3d", "panohead"])
def test_a_published_checkpoint_has_its_name_however_it_is_given_and_the_name_brings_it(
    family, originals, tmp_path, cache
):
    name = known.DEFAULTS[family]
    cache.mkdir(parents=True)
    for folder in (cache, tmp_path):
        write_pickle(originals[family], folder / known.find(name).file)
    convert(tmp_path / known.find(name).file, tmp_path / "mine.safetensors")
    for given in (None, name, tmp_path / known.find(name).file, tmp_path / "mine.safetensors"):
        assert load_generator(given and str(given), family=family).weights_name == name
    assert same_weights(load_generator(name, family=family), originals[family])


def test_a_file_that_nobody_published_has_no_name(originals, tmp_path, cache, monkeypatch):
    cache.mkdir(parents=True)
    published = known.find(known.DEFAULTS["eg3d"])
    write_pickle(originals["eg3d"], cache / published.file)
    write_pickle(originals["eg3d"], tmp_path / "network-snapshot.pkl")
    torch.save(originals["eg3d"].generator.state_dict(), tmp_path / "stylised.pth")
    assert load_eg3d(str(tmp_path / "stylised.pth")).weights_name == ""
    monkeypatch.setitem(known.CHECKPOINTS, published.name, replace(published, sha256="0" * 64))
    assert known.published_as(published.file, "1" * 64) == ""
    assert known.published_as(published.file, "0" * 64) == published.name
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "another"))
    assert load_eg3d(str(tmp_path / "network-snapshot.pkl")).weights_name == ""


def test_every_known_name_has_its_facts():
    for name, entry in known.CHECKPOINTS.items():
        assert entry.name == name
        assert entry.page.startswith("https://")
        assert entry.licence
        assert entry.size
        assert entry.file.endswith(".pkl")
    assert set(known.DEFAULTS.values()) <= set(known.CHECKPOINTS)
    with pytest.raises(UnknownNameError, match="Did you mean 'ffhq512-128'"):
        known.find("ffhq512-127")


class Server(http.server.BaseHTTPRequestHandler):
    """A file that can be asked for from any byte on; `breaks` answers end early."""

    content, breaks, asked, ranges = b"", 0, [], True

    def do_GET(self):
        kind = type(self)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")) if kind.ranges else 0
        kind.asked.append(start)
        if start >= len(kind.content):
            return self.send_error(416)
        part = kind.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(kind.content) - 1}/{len(kind.content)}")
        self.end_headers()
        if kind.breaks > 0:
            kind.breaks -= 1
            part = part[: len(part) // 2]
        self.wfile.write(part)

    def log_message(self, *given):
        pass


@pytest.fixture
def server():
    Server.content, Server.breaks, Server.asked, Server.ranges = bytes(range(256)) * 20_000, 0, [], True
    running = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/file.pkl"
    running.shutdown()


def test_a_broken_download_goes_on_where_it_was(server, tmp_path):
    target, seen = tmp_path / "file.pkl", []
    Server.breaks = 1
    with pytest.raises(WeightsError, match="bytes are kept"):
        download(server, target)
    assert not target.exists()
    download(server, target, progress=lambda here, total: seen.append((here, total)))
    assert target.read_bytes() == Server.content
    assert Server.asked[0] == 0 and Server.asked[1] > 1_000_000
    assert seen[-1] == (len(Server.content), len(Server.content))
    assert [p.name for p in tmp_path.iterdir()] == ["file.pkl"]


def test_a_line_that_breaks_is_no_fault_of_the_disk(server, tmp_path, monkeypatch):
    import http.client

    def reset(self, *given):
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(http.client.HTTPResponse, "read", reset)
    with pytest.raises(WeightsError, match=r"could not be downloaded: .*Connection reset"):
        download(server, tmp_path / "file.pkl")


def test_a_server_that_cannot_go_on_sends_the_whole_file(server, tmp_path):
    target = tmp_path / "file.pkl"
    Server.breaks = 1
    with pytest.raises(WeightsError):
        download(server, target)
    Server.ranges = False
    download(server, target)
    assert target.read_bytes() == Server.content


def test_a_download_that_was_already_whole_is_fetched_anew(server, tmp_path):
    """Its end was not seen: a kill between the last byte and the renaming."""
    target = tmp_path / "file.pkl"
    (tmp_path / "file.pkl.part").write_bytes(Server.content)
    download(server, target)
    assert target.read_bytes() == Server.content


def test_a_file_of_another_checksum_and_a_missing_server_are_said(server, tmp_path):
    with pytest.raises(WeightsError, match="not the published file"):
        download(server, tmp_path / "file.pkl", checksum="0" * 64)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WeightsError, match="could not be downloaded"):
        download("http://127.0.0.1:9/x", tmp_path / "file.pkl")


def test_fetch_asks_for_the_licence_first_then_downloads_where_loading_looks(
    server, originals, tmp_path, cache, monkeypatch
):
    write_pickle(originals["eg3d"], tmp_path / "network.pkl")
    Server.content = (tmp_path / "network.pkl").read_bytes()
    entry = replace(known.CHECKPOINTS["ffhqrebalanced512-128"], url=server)
    monkeypatch.setitem(known.CHECKPOINTS, entry.name, entry)
    refused = CliRunner().invoke(app, ["fetch", entry.name])
    assert "--accept-licence" in str(refused.exception)
    assert Server.asked == []
    done = CliRunner().invoke(app, ["fetch", entry.name, "--accept-licence"])
    assert done.exit_code == 0, done.exception
    assert same_weights(load_eg3d(), originals["eg3d"])
    again = CliRunner().invoke(app, ["fetch", entry.name])
    assert "here already" in again.output
    assert "here" in CliRunner().invoke(app, ["list"]).output


def test_the_plugin_offers_its_backbones_and_its_command():
    found = registry()
    assert {"eg3d", "panohead"} <= set(found.names("backbone"))
    assert "eg3d" in found.names("command")
