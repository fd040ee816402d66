"""Weights from timm's hub, here a server in this process that speaks as the hub does: nothing leaves the machine."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save

from tests.training import ROOT

FILE = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
BUILD = """
import sys
from safetensors.torch import save_file
from fastface.models import build_backbone
network = build_backbone("test_resnet", embedding_size=8, pretrained=True, input_size=(64, 64), stem="keep")
save_file({name: value.contiguous() for name, value in network.state_dict().items()}, sys.argv[1])
"""


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Serve a network's weights as huggingface.co does; give the address and the weights."""
    torch.manual_seed(7)
    weights = timm.create_model("test_resnet").state_dict()
    data = save(weights)

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = self.path == FILE
            self.send_response(200 if known else 404)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", str(len(data) if known else 0))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            if self.path == FILE:
                self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", weights
        server.shutdown()


def build(endpoint: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build a network of the hub's weights in a process that has never seen them."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"}
    line = [sys.executable, "-c", BUILD, str(folder / "network.safetensors")]
    return subprocess.run(line, env={**os.environ, **own}, capture_output=True, text=True, check=False)


def test_the_body_is_the_hubs(hub: tuple[str, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    endpoint, weights = hub
    done = build(endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    network = load_file(tmp_path / "network.safetensors")
    body = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    assert len(body) > 40
    for name, value in body.items():
        assert torch.equal(network[f"net.{name}"], value), name
