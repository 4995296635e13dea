"""How a study runs and what it says."""

from study.launch import launch

__all__ = ["launch"]
