"""Prints the source file of each module that the project's processes and commands import.

The image has bytecode of these files only. Bytecode of everything would be 20 MB more.
"""

import importlib
import pkgutil
import sys

PACKAGES = ("common", "wallet_api", "outbox_relay", "history_consumer", "walletctl")
IMPORTED_AT_WORK = (
    "alembic.command",
    "encodings.idna",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.supervisors",
)


def main() -> None:
    """Import all that the project may import, and print where it came from."""
    for name in (*PACKAGES, *IMPORTED_AT_WORK):
        importlib.import_module(name)
    for package in PACKAGES:
        for module in pkgutil.walk_packages(sys.modules[package].__path__, f"{package}."):
            # Importing it would run it.
            if module.name != "walletctl.__main__":
                importlib.import_module(module.name)
    files = {getattr(module, "__file__", None) or "" for module in sys.modules.values()}
    installed = (file for file in files if file.endswith(".py") and file.startswith((sys.prefix, sys.base_prefix)))
    print("\n".join(sorted(installed)))


if __name__ == "__main__":
    main()
