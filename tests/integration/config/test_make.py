"""What `make` says."""

import os
import subprocess

from tests.processes import ROOT


def test_make_says_what_it_does_before_it_is_silent() -> None:
    # Not as a make within the make that runs these tests, whose ARGS and messages it would share.
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    env.pop("MFLAGS", None)
    for target in ("up", "test"):
        made = subprocess.run(
            ["make", target, "SYSTEM_UV=uv", "UV=echo"],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        first, second = made.stdout.splitlines()
        assert first.startswith("Installing what is missing")
        assert "--quiet" not in second, "uv says what it installs"
