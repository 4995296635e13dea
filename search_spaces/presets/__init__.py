"""The named presets, as YAML files."""
