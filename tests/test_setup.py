"""The lock, the metadata and the licence list agree; the guard that keeps tests off the network guards."""

import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import fastface

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ["3.11", "3.12", "3.13"]
LOCKED_EXTRAS = ["cuda13", "dev", "remote", "video", "tables", "ssd"]  # dev names the last four


def entries() -> list[tuple[Requirement, list[str]]]:
    """Read the lock as (requirement, hashes)."""
    joined = LOCK.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            found.append((Requirement(requirement), hashes))
    return found


def locked(python: str) -> dict[str, Version]:
    """Give the versions that one Python on x86-64 Linux gets."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    versions: dict[str, Version] = {}
    for requirement, _ in entries():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in versions, f"{name} is locked twice for Python {python}"
            (specifier,) = requirement.specifier
            versions[name] = Version(specifier.version)
    return versions


def test_every_locked_version_is_exact_and_hashed() -> None:
    assert len(entries()) > 80
    for requirement, hashes in entries():
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], str(requirement)
        assert requirement.url is None
        assert hashes, f"{requirement.name} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement.name


def test_the_lock_names_no_host_and_no_path() -> None:
    assert not re.search(r"://|--(?:index-url|extra-index-url|find-links|trusted-host)|(?<![<>=!~\w])/\w", LOCK)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_the_metadata(python: str) -> None:
    versions = locked(python)
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(line for extra in LOCKED_EXTRAS for line in extras[extra])]
    environment = {"sys_platform": "linux", "platform_machine": "x86_64", "python_version": python}
    for requirement in map(Requirement, wanted):
        if requirement.name == "fastface":
            assert set(LOCKED_EXTRAS) - {"cuda13", "dev"} == requirement.extras
        elif requirement.marker is None or requirement.marker.evaluate(environment):
            version = versions[canonicalize_name(requirement.name)]
            assert version in requirement.specifier, f"{requirement} is locked at {version}"


def test_torch_is_the_build_that_torchvision_matches() -> None:
    """The CPU build of torch carries a local version, and torchvision does not load beside it."""
    assert locked("3.11")["torch"].local is None


def test_what_the_metadata_offers() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    assert {"cuda12", "cuda13", "cpu", "dev"} <= PROJECT["optional-dependencies"].keys()
    assert "version" in PROJECT["dynamic"]
    assert Version(fastface.__version__)
    macos = {"sys_platform": "darwin", "platform_machine": "arm64", "python_version": "3.12"}
    for extra in ("cuda12", "cuda13"):
        requirements = map(Requirement, PROJECT["optional-dependencies"][extra])
        names = {r.name for r in requirements if r.marker is None or r.marker.evaluate(macos)}
        assert names == {"faiss-cpu"}, f"{extra} on macOS"


def test_every_locked_package_has_its_licence_listed() -> None:
    text = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    listed = {canonicalize_name(name) for name in re.findall(r"^\| ([\w.-]+) \|", text, re.MULTILINE)}
    names = {canonicalize_name(requirement.name) for requirement, _ in entries()}
    assert names - listed == set(), "THIRD_PARTY.md lacks these"
    assert listed - names - {"package", "faiss-cpu", "nvidia-dali-cuda120"} == set(), "no longer installed"


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, fastface; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


REACH_OUT = """
import socket, sys
try:
    socket.create_connection(("192.0.2.1", 9), timeout=0.01)
except OSError as error:
    print(error)
"""


def test_no_network_refuses_and_tells(no_network: Path) -> None:
    with pytest.raises(ConnectionRefusedError, match="allows no network"):
        socket.create_connection(("192.0.2.1", 9), timeout=0.01)
    with pytest.raises(ConnectionRefusedError, match="allows no network"):
        socket.getaddrinfo("example.invalid", 443)
    assert no_network.read_text().count("192.0.2.1") >= 1
    assert "example.invalid" in no_network.read_text()
    no_network.write_text("")  # these were meant


def test_no_network_reaches_other_processes(no_network: Path) -> None:
    done = subprocess.run([sys.executable, "-c", REACH_OUT], capture_output=True, text=True, check=True)
    assert "allows no network" in done.stdout
    assert "192.0.2.1" in no_network.read_text()
    no_network.write_text("")


def test_no_network_leaves_loopback_alone(no_network: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client:
            assert client.getpeername()[0] == "127.0.0.1"
    assert no_network.read_text() == ""


def test_the_guard_ends_with_its_fixture() -> None:
    assert socket.getaddrinfo("192.0.2.1", 9, type=socket.SOCK_STREAM)  # a number: nothing is asked of a network
