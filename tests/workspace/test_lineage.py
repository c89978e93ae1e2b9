"""What earlier versions removed."""

import pytest

from puma_dash.workspace.ledger import Ledger
from puma_dash.workspace.lineage import removed_before
from puma_dash.workspace.store import Store, key


@pytest.fixture
def ledger(tmp_path):
    found = Ledger(tmp_path)
    yield found
    found.close()


@pytest.fixture
def accept(ledger, tmp_path):
    """Accepts a patch that removes some rows; returns its version."""

    def accepted(parent, *rows):
        patch = key("patch", rows)
        Store(tmp_path / "cache").save(patch, {}, {"plan": {"remove": list(rows)}})
        return ledger.append("accepted", source="s", parent=parent, patch=patch, details={}).id

    return accepted


def test_a_version_lacks_what_it_and_its_ancestors_removed_and_no_other(accept, ledger, tmp_path):
    first = accept(None, 5, 2)
    second = accept(first, 9, 2)
    accept(first, 7)  # a sibling
    accept(second, 1)  # a child
    store = Store(tmp_path / "cache")
    assert removed_before(ledger, store, second).tolist() == [2, 5, 9]
    assert removed_before(ledger, store, first).tolist() == [2, 5]
    assert removed_before(ledger, store, None).tolist() == []


def test_a_patch_that_is_gone_and_a_version_that_never_was_add_nothing(accept, ledger, tmp_path):
    first = accept(None, 5)
    missing = ledger.append("accepted", source="s", parent=first, patch="0" * 64, details={}).id
    store = Store(tmp_path / "cache")
    assert removed_before(ledger, store, missing).tolist() == [5]
    assert removed_before(ledger, store, 99).tolist() == []
