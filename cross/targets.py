#!/usr/bin/env python3
"""Prints what targets.toml says, for the scripts beside it.

targets.py list 1            triples of that tier and below
targets.py get TRIPLE KEY    one value; a list as words; nothing if it is not there
"""
import pathlib
import sys
import tomllib

TARGETS = tomllib.loads((pathlib.Path(__file__).parent / "targets.toml").read_text())["target"]


def main() -> None:
    match sys.argv[1:]:
        case ["list", tier]:
            print("\n".join(target["triple"] for target in TARGETS if target["tier"] <= int(tier)))
        case ["get", triple, key]:
            found = [target for target in TARGETS if target["triple"] == triple]
            if not found:
                sys.exit(f"targets.toml has no {triple}")
            value = found[0].get(key, "")
            print(" ".join(value) if isinstance(value, list) else value)
        case _:
            sys.exit(__doc__)


main()
