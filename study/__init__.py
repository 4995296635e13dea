"""How a study runs and what it says."""

from study.driver import launch

__all__ = ["launch"]
