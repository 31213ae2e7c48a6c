"""What the processes of one command know of each other."""

import os
import sys
from pathlib import Path

import pytest

from saga_runtime.processes import oldest_sign_of_life, this_program


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (["manage.py"], ["up", "--port", "1"]),
        (["-X", "dev", "manage.py"], ["up"]),
        (["-m", "django"], []),
    ],
)
def test_this_program_is_what_was_started_without_its_arguments(
    monkeypatch: pytest.MonkeyPatch, program: list[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", *program, *arguments])
    monkeypatch.setattr(sys, "argv", ["where it was found", *arguments])
    assert this_program() == [sys.executable, *program]


class TestTheOldestSign:
    @pytest.fixture
    def signs(self, tmp_path: Path) -> list[Path]:
        return [tmp_path / "one", tmp_path / "two"]

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "alive"

    def give(self, sign: Path, at: int) -> None:
        sign.touch()
        os.utime(sign, (at, at))

    def test_there_is_none_until_each_has_given_one(self, file: Path, signs: list[Path]) -> None:
        pass_on = oldest_sign_of_life(file, signs, every=0)
        pass_on()
        self.give(signs[0], at=100)
        pass_on()
        assert not file.exists()
        self.give(signs[1], at=90)
        pass_on()
        assert file.stat().st_mtime == 90

    def test_it_grows_old_with_the_one_that_hangs(self, file: Path, signs: list[Path]) -> None:
        pass_on = oldest_sign_of_life(file, signs, every=0)
        for at in (100, 200, 300):
            self.give(signs[0], at=at)
            self.give(signs[1], at=min(at, 200))
            pass_on()
            assert file.stat().st_mtime == min(at, 200)

    def test_it_is_looked_for_now_and_then(self, file: Path, signs: list[Path]) -> None:
        pass_on = oldest_sign_of_life(file, signs, every=3600)
        for at in (100, 200):
            for sign in signs:
                self.give(sign, at=at)
            pass_on()
        assert file.stat().st_mtime == 100

    def test_without_a_file_nothing_is_done(self, tmp_path: Path, signs: list[Path]) -> None:
        for sign in signs:
            self.give(sign, at=100)
        oldest_sign_of_life(None, signs, every=0)()
        assert {*tmp_path.iterdir()} == {*signs}
