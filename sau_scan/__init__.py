"""sau-scan: finds hidden triggers in text-to-image checkpoints, shows why, and repairs them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sau_scan.fix import fix
    from sau_scan.scan import detect

__version__ = "0.1.0"
__all__ = ["__version__", "detect", "fix"]


def __getattr__(name: str) -> Any:
    # Imported on first use: torch takes seconds, and --help must not wait for it.
    if name == "detect":
        from sau_scan.scan import detect

        return detect
    if name == "fix":
        from sau_scan.fix import fix

        return fix
    raise AttributeError(name)


class _Package(ModuleType):
    """Keeps ``sau_scan.fix`` the function: importing the module of that name would put itself in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("detect", "fix") and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
