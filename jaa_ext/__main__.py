"""``python -m jaa_ext`` is the command `jaa`."""

from jaa_ext.cli import main

main()
