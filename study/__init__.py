"""How a study runs and what it says."""

from study.driver import launch
from study.searching import search

__all__ = ["launch", "search"]
