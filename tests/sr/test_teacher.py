"""A foreign network as the teacher: a small RRDB, made here, in a file as ESRGAN's are."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

pytest.importorskip("spandrel")

from nas_apps.core.errors import UserError  # noqa: E402
from nas_apps.tasks.sr.teacher import Teacher  # noqa: E402

WIDTH, GROWTH = 8, 32


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for k in range(5):
            self.add_module(f"conv{k + 1}", nn.Conv2d(WIDTH + GROWTH * k, GROWTH if k < 4 else WIDTH, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for k in range(5):
            seen.append(self.get_submodule(f"conv{k + 1}")(torch.cat(seen, 1)))
            seen[-1] = functional.leaky_relu(seen[-1], 0.2) if k < 4 else seen[-1]
        return x + 0.2 * seen[-1]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.RDB1, self.RDB2, self.RDB3 = Dense(), Dense(), Dense()

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.RDB3(self.RDB2(self.RDB1(x)))


class RRDB(nn.Module):
    """The network of arXiv:1809.00219 with the names of its released weights."""

    def __init__(self, scale: int, channels: int) -> None:
        super().__init__()
        self.conv_first, self.RRDB_trunk = nn.Conv2d(channels, WIDTH, 3, padding=1), nn.Sequential(Block())
        self.trunk_conv, self.HRconv = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))
        self.ups = scale.bit_length() - 1
        for k in range(self.ups):
            self.add_module(f"upconv{k + 1}", nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        self.conv_last = nn.Conv2d(WIDTH, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first(x)
        y = first + self.trunk_conv(self.RRDB_trunk(first))
        for k in range(self.ups):
            y = functional.leaky_relu(
                self.get_submodule(f"upconv{k + 1}")(functional.interpolate(y, scale_factor=2)), 0.2
            )
        return self.conv_last(functional.leaky_relu(self.HRconv(y), 0.2))


def rrdb(scale: int = 4, channels: int = 3) -> nn.Module:
    return RRDB(scale, channels)


def saved(path: Path, network: nn.Module) -> Path:
    torch.save({"params_ema": network.state_dict()}, path)
    return path


def test_a_teacher_says_what_its_network_does_and_can_be_learned_from(tmp_path: Path) -> None:
    network, lr = rrdb(), torch.rand(2, 3, 7, 9)
    with torch.no_grad():
        expected = network(lr).clamp(0, 1)
    hr = Teacher(saved(tmp_path / "rrdb.pth", network), 4)(lr)
    assert torch.allclose(hr, expected, atol=1e-6)
    assert hr.std() > 0.01
    weight = torch.ones(1, requires_grad=True)
    ((weight * hr - 0.5) ** 2).mean().backward()
    assert weight.grad is not None
    save_file(network.state_dict(), tmp_path / "rrdb.safetensors")
    assert torch.equal(Teacher(tmp_path / "rrdb.safetensors", 4)(lr), hr)


def test_a_teacher_keeps_its_precision_where_the_learner_runs_in_less(tmp_path: Path) -> None:
    teacher, lr = Teacher(saved(tmp_path / "rrdb.pth", rrdb()), 4), torch.rand(1, 3, 7, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher(lr), teacher(lr.float()))
        assert teacher(lr).dtype == torch.float32
    assert torch.equal(teacher(lr), teacher(lr))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such file": (lambda path: None, "cannot be read: No such file or directory"),
    "a folder": (Path.mkdir, "cannot be read: Is a directory"),
    "no weights": (lambda path: path.write_text("<html>"), "truncated, or no file of weights"),
    "a list": (lambda path: torch.save([1], path), "holds a list; allowed: a dictionary of weights"),
    "nothing": (lambda path: torch.save({}, path), "of no network that spandrel .* knows"),
    "another network": (lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), "of no network that spandrel"),
    "another scale": (lambda path: saved(path, rrdb(2)), "ESRGAN of scale 2, .*; allowed: scale 4, 3 channels"),
    "grey": (lambda path: saved(path, rrdb(channels=1)), "1 channels in and 1 out; allowed: scale 4, 3 channels"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_what_is_no_teacher_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    make, message = FAULTS[fault]
    make(tmp_path / "rrdb.pth")
    with pytest.raises(UserError, match=f"rrdb.pth: .*{message}") as caught:
        Teacher(tmp_path / "rrdb.pth", 4)
    assert "\n" not in str(caught.value)


def test_a_teacher_with_weights_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    state = rrdb().state_dict()
    for damage in ({"RRDB_trunk.0.RDB1.conv2.weight": torch.zeros(3, 3)}, {"conv_last.weight": torch.zeros(3)}):
        torch.save({**state, **damage}, tmp_path / "rrdb.pth")
        with pytest.raises(UserError, match="rrdb.pth: the weights of no whole network"):
            Teacher(tmp_path / "rrdb.pth", 4)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("nas_apps.core.errors.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs spandrel, which is not installed: pip install 'nas-apps\[teacher\]'"):
        Teacher(tmp_path / "rrdb.pth", 4)
    assert "spandrel" in sys.modules
