"""What a user hears of ESPnet's imports: nothing."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

pytest.importorskip("espnet2")

LOUD = """
import socket, sys
def loud(*args, **kwargs):
    sys.__stderr__.write(f"network: {args}")
    raise OSError("no network")
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, loud)
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = loud
"""


def heard(code: str) -> tuple[str, str]:
    """What a process prints that may not touch the network."""
    done = subprocess.run([sys.executable, "-c", LOUD + code], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_what_a_search_imports_says_nothing_and_is_not_the_task_of_espnet() -> None:
    code = """
import nas_apps.tasks.asr.decode, nas_apps.tasks.asr.objective
assert not {"espnet2.tasks", "nltk", "g2p_en"} & set(sys.modules)
"""
    assert heard(code) == ("", "")


def test_the_entry_points_of_espnet_import_without_a_word_and_without_the_network() -> None:
    code = """
from nas_apps.tasks.asr.quiet import quiet
import nltk
download = nltk.download
with quiet(tasks=True):
    import espnet2.bin.asr_inference, espnet2.bin.asr_train
assert nltk.download is download
print("heard")
"""
    assert heard(code) == ("heard\n", "")


def test_the_network_is_heard_where_it_is_touched() -> None:
    code = """
try:
    socket.create_connection(("localhost", 1))
except OSError:
    pass
"""
    assert "network" in heard(code)[1]


def test_only_the_warning_of_autocast_is_gone_after_the_import() -> None:
    from nas_apps.tasks.asr.quiet import quiet

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("while importing", stacklevel=1)
        warnings.warn("`torch.cuda.amp.autocast(args...)` is deprecated.", FutureWarning, stacklevel=1)
        warnings.warn("another", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["another"]


def test_a_failing_import_leaves_everything_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    from nas_apps.tasks.asr.quiet import quiet

    with pytest.raises(ModuleNotFoundError), quiet():
        import nas_apps.no_such_module  # noqa: F401
    sys.stdout.write("still here")
    assert capsys.readouterr().out == "still here"
