"""Lets ``python -m anomalib_memd.cli`` run the commands."""

from .main import main

main()
