from types import SimpleNamespace

import pytest
import torch

from detector.exceptions import ConfigError
from detector.models.device import choose_accelerator, choose_device, precision_of


def test_choose_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="accelerator=gpu: PyTorch finds no usable GPU"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == choose_device("gpu") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_the_message_without_a_gpu_is_that_of_the_caller(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_accelerator("auto") == choose_accelerator("cpu") == "cpu"
    with pytest.raises(ConfigError, match=r"^use trainer=cpu$"):
        choose_accelerator("gpu", "use trainer=cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("32", None), ("16-mixed", None), ("bf16-mixed", torch.bfloat16)])
def test_the_precision_on_the_cpu(precision, dtype):
    module = torch.nn.Linear(2, 2)
    module.config = SimpleNamespace(trainer=SimpleNamespace(precision=precision))
    with precision_of(module):
        assert module(torch.zeros(1, 2)).dtype == (dtype or torch.float32)
