import signal

import pytest

import pellucid as pl
import service as services

PROMPT = "The Eiffel Tower is in the city of"
CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"


@pytest.fixture(scope="session", autouse=True)
def interruptions():
    """Ctrl-C interrupts, also where the tests were started in a shell's background, which has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def model():
    return pl.Model("bundled")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service without keys."""
    if not services.BINARY:
        pytest.skip("PELLUCID_BINARY does not say where the service is")
    started = services.Service(tmp_path_factory.mktemp("service"))
    yield started
    started.end()


@pytest.fixture(scope="module")
def remote(service):
    """The bundled model at that service."""
    return pl.Model("bundled", remote=service.address)


@pytest.fixture()
def nothing_set_up(monkeypatch, tmp_path):
    """Nothing of the tester's own: no key, no service, little patience."""
    if not services.BINARY:
        pytest.skip("PELLUCID_BINARY does not say where the service is")
    for name in ("PELLUCID_API_KEY", "PELLUCID_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config.toml").write_text("patience_seconds = 5.0\n")
    monkeypatch.setenv("PELLUCID_CONFIG", str(tmp_path / "config.toml"))
