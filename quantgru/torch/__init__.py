"""Quantization-aware fine-tuning of PyTorch models: `qg.torch.prepare`, a training loop, `qg.torch.convert`."""

from quantgru.errors import ConfigError

try:
    import torch  # noqa: F401
except ImportError:
    raise ConfigError("fine-tuning needs PyTorch, which is not installed: pip install quantgru[torch]") from None

from quantgru.torch.prepared import Prepared, Run, convert, prepare

__all__ = ["Prepared", "Run", "convert", "prepare"]
