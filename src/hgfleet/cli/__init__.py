"""The commands: the only reader of argv, environment and configuration file."""
