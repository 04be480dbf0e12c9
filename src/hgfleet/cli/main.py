"""The `hgfleet` command: the tree of subcommands and the one place that turns failures into exit codes."""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hgfleet")
def main() -> None:
    """Host Mercurial repositories on one machine or many."""
