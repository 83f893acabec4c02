"""Which other libraries are here."""

from __future__ import annotations

from .contestant import Peer


def find_peers() -> list[Peer]:
    """Those that are installed."""
    found: list[Peer] = []
    try:
        from .pytorch import PyTorch  # noqa: PLC0415  # optional, and slow to import

        found.append(PyTorch())
    except ImportError:
        pass
    try:
        from .onnx_runtime import OnnxRuntime  # noqa: PLC0415  # optional

        found.append(OnnxRuntime())
    except ImportError:
        pass
    return found
