"""Lets `python -m walletctl` do what `walletctl` does."""

from walletctl.cli import main

main()
