"""One TOML file, turned into frozen typed values."""
