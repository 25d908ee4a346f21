"""Every planted defect is caught, and the sound code passes the same battery."""

import pytest

from tests.mutants.battery import first_catch, first_catch_with_a_store
from tests.mutants.catalogue import MUTANTS
from tests.mutants.journal_mutants import JOURNAL_MUTANTS
from tests.mutants.planting import AnchorVanishedError, Mutant, edit, planted, replace


def test_sound_code_passes_the_battery() -> None:
    assert first_catch() is None


@pytest.mark.filterwarnings("ignore")  # a broken dispatcher may well leave coroutines behind
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Mutant) -> None:
    with planted(mutant):
        caught = first_catch()
    assert caught is not None, f"{mutant.name} survived: {mutant.history}"
    print(f"{mutant.name}: {caught}")


def test_sound_code_with_a_store_passes_the_battery() -> None:
    assert first_catch_with_a_store() is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutant", JOURNAL_MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_of_the_journal_is_caught(mutant: Mutant) -> None:
    with planted(mutant):
        caught = first_catch_with_a_store()
    assert caught is not None, f"{mutant.name} survived: {mutant.history}"
    print(f"{mutant.name}: {caught}")


def test_mutant_whose_anchor_vanished_fails_loudly() -> None:
    with pytest.raises(AnchorVanishedError):
        edit(Mutant, "__init__", ("no such words", ""))
    with pytest.raises(AnchorVanishedError):
        replace(Mutant, "no_such_method", lambda original: original)
