"""What to try: the space format, its checks and the named presets."""

from search_spaces.chaos_block import Chaos, Primary
from search_spaces.cone_block import Cone
from search_spaces.growth_block import Growth
from search_spaces.source import parse_overrides, preset_names, preset_summary, preset_text, space_yaml
from search_spaces.space import Space, load
from search_spaces.training_block import Training

__all__ = [
    "Chaos",
    "Cone",
    "Growth",
    "Primary",
    "Space",
    "Training",
    "load",
    "parse_overrides",
    "preset_names",
    "preset_summary",
    "preset_text",
    "space_yaml",
]
