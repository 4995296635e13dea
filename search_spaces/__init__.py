"""What to try: the space format, its checks and the named presets."""

from search_spaces.chaos_block import Chaos, Primary
from search_spaces.cone_block import Cone
from search_spaces.fold import Fold
from search_spaces.growth_block import Growth
from search_spaces.refine import Refine
from search_spaces.search_block import GOALS, Search
from search_spaces.search_space import SearchSpace, load_search
from search_spaces.source import (
    override_keys,
    parse_overrides,
    preset_names,
    preset_summary,
    preset_text,
    read_source,
    space_yaml,
)
from search_spaces.space import Space, load
from search_spaces.switch_block import Switch
from search_spaces.training_block import Training

__all__ = [
    "GOALS",
    "Chaos",
    "Cone",
    "Fold",
    "Growth",
    "Primary",
    "Refine",
    "Search",
    "SearchSpace",
    "Space",
    "Switch",
    "Training",
    "load",
    "load_search",
    "override_keys",
    "parse_overrides",
    "preset_names",
    "preset_summary",
    "preset_text",
    "read_source",
    "space_yaml",
]
