"""What earlier versions removed."""

import pytest

from puma_dash.workspace.ledger import Ledger
from puma_dash.workspace.lineage import removed_before


@pytest.fixture
def ledger(tmp_path):
    found = Ledger(tmp_path)
    yield found
    found.close()


def test_a_version_lacks_what_it_and_its_ancestors_removed_and_no_other(ledger):
    def accept(parent, *rows):
        details = {"plan": {"remove": list(rows)}}
        return ledger.append("accepted", source="s", parent=parent, patch=str(rows), details=details).id

    first = accept(None, 5, 2)
    second = accept(first, 9, 2)
    accept(first, 7)  # a sibling
    accept(second, 1)  # a child
    assert removed_before(ledger, second).tolist() == [2, 5, 9]
    assert removed_before(ledger, first).tolist() == [2, 5]
    assert removed_before(ledger, None).tolist() == []
    assert removed_before(ledger, 99).tolist() == []
