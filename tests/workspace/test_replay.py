"""A patch accepted by the worker's tasks, opened again, and made again from the ledger alone."""

import shutil

import numpy as np
import pytest
import torch

import puma_dash as puma
from puma_dash.core import api
from puma_dash.core.curvature import inverse_of
from puma_dash.core.engine import engine_of
from puma_dash.core.plan import PatchPlan
from puma_dash.core.types import ProjectError
from puma_dash.core.unlearning.sisa import Ensemble
from puma_dash.workspace import projects, provenance, tasks, weights
from puma_dash.workspace.replay import replay
from puma_dash.workspace.store import Store, key

HELD = ("brier", "cross_entropy")


def quiet(*_):
    pass


def small_project(touched=None):
    """A network on random rows, too large for the dense matrix; row ``touched`` is another one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 20, generator=generator)
    y = (x @ torch.randn(20, 3, generator=generator)).argmax(1)
    if touched is not None:
        x[touched, 0] += 1
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(20, 180), torch.nn.Tanh(), torch.nn.Linear(180, 3))
    splits = puma.Split(x[:120], y[:120]), puma.Split(x[120:], y[120:])
    return puma.Project(name="s", model=net, train=splits[0], validation=splits[1], weight_decay=0.01)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with two versions of two moons: some rows removed, then some relabelled and up-weighted."""
    folder = tmp_path_factory.mktemp("replayed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUMA_DASH_HOME", str(folder))
        projects.close()
        first = accepted(None, remove=list(range(0, 60, 2)), hold=["cross_entropy"], why="wrong labels")
        accepted(first, remove=[1, 3], relabel=[5, 7, 9], upweight={"11": 2.0}, steps=2)
        yield folder
    projects.close()


def patched(version, **plan):
    """The key of a patch, as the worker makes it."""
    labels = projects.open_project("two-moons", version).train.targets
    plan["relabel"] = {str(row): int(1 - labels[row]) for row in plan.get("relabel", ())}
    plan["tolerance"] = {name: 9.0 for name in plan.get("hold", ())}
    name = key("plan", plan)
    Store(tasks.home() / "cache").save(name, {}, {"method": "puma", **plan})
    params = {"source": "two-moons", "version": version, "plan": name, "device": "cpu", "seed": 3}
    return tasks.patch(params, quiet, None)["patch"]


def accepted(version, why="", **plan):
    """The entry of a new version."""
    params = {"source": "two-moons", "version": version, "patch": patched(version, **plan), "why": why}
    return tasks.accept(params, quiet, None)["version"]


@pytest.fixture
def ledger(home):
    """The ledger of that home."""
    return projects.ledger()


@pytest.fixture
def versions(ledger):
    """The entries of the two versions."""
    return [version.entry for version in ledger.versions("two-moons").accepted]


def failed(checks):
    """The names of what did not fit."""
    return [check.name for check in checks if check.decides and not check.fits]


@pytest.mark.parametrize("which", [0, 1])
def test_a_patch_is_made_again_bit_for_bit_without_the_cache(home, ledger, versions, which, monkeypatch):
    shutil.rmtree(home / "cache")
    projects.close()
    checks = {check.name: check for check in replay(ledger, versions[which], home)}
    assert all(check.fits for check in checks.values())
    assert "bit for bit" in checks["model after"].sentence
    assert {"chain", "data", "rows", "model before", "kept weights", "training weights"} <= set(checks)


def test_what_was_asked_before_does_not_move_a_bit(home):
    """An engine that knows more solves in another order; patches start from one that knows nothing.

    Two criteria at once are solved as a block by conjugate gradients: not to the bits of one after the other.
    """
    project = small_project()
    plan = PatchPlan(remove=tuple(range(20)), hold=HELD, tolerance=dict.fromkeys(HELD, 9.0))
    cold = provenance.patch_anew(project, plan, seed=0, device="cpu")
    api.value(project, criterion="cross_entropy")
    api.value(project, criterion="brier")
    warm = provenance.patch_anew(project, plan, seed=0, device="cpu")
    used = api.patch(project, plan, device="cpu")
    assert torch.equal(warm.delta, cold.delta)
    assert not torch.equal(used.delta, cold.delta)


@pytest.mark.parametrize("method", ["retrain", "fine_tune", "gradient_ascent"])
def test_other_methods_are_made_again_bit_for_bit_too(method):
    plan = PatchPlan(remove=tuple(range(20)), method=method)
    one, two = (provenance.patch_anew(small_project(), plan, seed=4, device="cpu") for _ in range(2))
    assert provenance.hashes(small_project(), one) == provenance.hashes(small_project(), two)


class Kept:
    """What is kept on disk, and the names of what had to be computed."""

    def __init__(self, folder):
        self.store, self.made = Store(folder), []

    def __call__(self, name, compute):
        def noted():
            self.made.append(name.split()[0])
            return compute(), {}

        return self.store.fetch(key(name), noted).arrays


@pytest.mark.parametrize("method", ["puma", "influence"])
def test_what_is_held_is_solved_once_for_all_patches_and_moves_no_bit(tmp_path, method):
    project, kept, solved = small_project(), Kept(tmp_path), []
    for rows, held in ((20, HELD), (20, HELD), (30, HELD), (20, HELD[::-1]), (20, HELD[:1])):
        tolerance = dict.fromkeys(held, 9.0)
        plan = PatchPlan(remove=tuple(range(rows)), hold=held, tolerance=tolerance, method=method)
        kept.made.clear()
        found = provenance.patch_anew(project, plan, seed=0, device="cpu", keep=kept)
        solved.append("influences" in kept.made)
        replayed = provenance.patch_anew(project, plan, seed=0, device="cpu")
        assert torch.equal(found.delta, replayed.delta)
        assert np.array_equal(found.weights, replayed.weights)
        assert found.predicted == replayed.predicted
        assert found.diagnostics["residual"] == replayed.diagnostics["residual"]
    assert solved == [True, False, False, True, True]


def test_psi_that_a_page_asked_for_first_is_the_psi_of_a_patch(tmp_path):
    project, kept = small_project(), Kept(tmp_path)
    project.memo["store"] = kept
    psi = api.value(project, criterion="brier", device="cpu")
    assert kept.made.count("influences") == 1
    plan = PatchPlan(remove=tuple(range(20)), hold=("brier",), tolerance={"brier": 9.0})
    found = provenance.patch_anew(project, plan, seed=0, device="cpu", keep=kept)
    assert kept.made.count("influences") == 1
    assert torch.equal(found.delta, provenance.patch_anew(project, plan, seed=0, device="cpu").delta)
    again = small_project()
    again.memo["store"] = kept
    read = api.value(again, criterion="brier", device="cpu")
    assert np.array_equal(read.scores, psi.scores)
    assert read.diagnostics == psi.diagnostics


def test_what_an_engine_solves_later_is_not_kept(tmp_path):
    """Its last bits are those of one history, and no other worker's."""
    project, kept = small_project(), Kept(tmp_path)
    project.memo["store"] = kept
    engine = engine_of(project, "cpu")
    inverse_of(engine, "auto")(engine.theta[None])
    for criterion in HELD:
        api.value(project, criterion=criterion, device="cpu")
    assert "influences" not in kept.made
    assert "preconditioner" in kept.made


def test_the_hash_of_rows_covers_what_is_marked_and_what_the_rows_are():
    plan = PatchPlan(remove=(1, 2), relabel={3: 0})
    base = provenance.rows_hash(small_project(), plan)
    assert provenance.rows_hash(small_project(), plan) == base
    assert provenance.rows_hash(small_project(touched=2), plan) != base
    assert provenance.rows_hash(small_project(touched=7), plan) == base
    assert provenance.rows_hash(small_project(), PatchPlan(remove=(1,), relabel={2: 0, 3: 0})) != base
    assert provenance.rows_hash(small_project(), PatchPlan(remove=(1, 2), relabel={3: 1})) != base
    assert provenance.data_hash(small_project(touched=7)) != provenance.data_hash(small_project())


def test_the_chain_of_models_fits_together(ledger, versions):
    first, second = (ledger.entry(version).details for version in versions)
    assert second["hashes"]["model before"] == first["hashes"]["model after"] == first["kept"]["model"]
    assert first["hashes"]["data"] == provenance.data_hash(projects.open_project("two-moons", None))
    assert second["fingerprint"] == first["after"]


def test_a_version_opens_from_its_own_files(home, ledger, versions):
    """Without the cache and without its parent's files: labels, weights and model are those accepted."""
    shutil.rmtree(home / "cache", ignore_errors=True)
    details = ledger.entry(versions[1]).details
    hidden = weights.file(home, ledger.entry(versions[0]).details["kept"]["rows"])
    hidden.rename(hidden.with_suffix(".away"))
    projects.close()
    original, project = (projects.open_project("two-moons", version) for version in (None, versions[1]))
    hidden.with_suffix(".away").rename(hidden)
    assert project.fingerprint == details["after"]
    changed = (project.train.targets != original.train.targets).nonzero().ravel().tolist()
    assert changed == [5, 7, 9]
    assert (project.train.weights[[1, 3, *range(0, 60, 2)]] == 0).all()
    assert project.train.weights[11] == 3


def test_an_entry_says_all_that_makes_a_patch(ledger, versions):
    entry = ledger.entry(versions[0])
    assert entry.why == "wrong labels"
    assert entry.details["seed"] == 3
    assert entry.details["threads"] == torch.get_num_threads()
    assert entry.details["plan"]["remove"] == list(range(0, 60, 2))
    assert entry.details["libraries"]["torch"] == torch.__version__
    assert set(entry.details["hashes"]) == {"data", "rows", "model before", "model after", "training weights"}
    assert {"predicted", "measured", "comparison", "test", "machine", "seconds"} <= set(entry.details)
    opened = [e for e in ledger.entries("two-moons") if e.kind == "test opened"]
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 3, "plan": {"strength": 0.5}}, "model after"),
        ({"hashes": {"data": "0" * 64}}, "data"),
        ({"hashes": {"rows": "0" * 64}}, "rows"),
        ({"hashes": {"model after": "0" * 64}}, "model after"),
        ({"hashes": {"training weights": "0" * 64}}, "training weights"),
        ({"predicted": {"cross_entropy": -1.0}}, "predicted cross_entropy"),
        ({"measured": {"cross_entropy": -1.0}}, "measured cross_entropy"),
    ],
)
def test_what_does_not_fit_is_named(home, ledger, versions, change, name):
    entry = ledger.entry(versions[0])
    details = dict(entry.details)
    for part, value in change.items():
        details[part] = {**details[part], **value} if isinstance(value, dict) else value
    forged = ledger.append("discarded", source="two-moons", parent=None, patch="forged", details=details)
    assert name in failed(replay(ledger, forged.id, home))


def test_tampered_weights_are_refused_and_named(home, ledger, versions):
    file = weights.file(home, ledger.entry(versions[0]).details["kept"]["model"])
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    projects.close()
    try:
        with pytest.raises(ProjectError, match="its content has changed"):
            projects.open_project("two-moons", versions[0])
        checks = {check.name: check for check in replay(ledger, versions[0], home)}
        assert failed(checks.values()) == ["kept weights"]
        assert "its content has changed" in checks["kept weights"].sentence
        assert checks["model after"].fits
    finally:
        file.write_bytes(whole)


def test_absent_weights_are_a_sentence(home, ledger, versions):
    file = weights.file(home, ledger.entry(versions[1]).details["kept"]["model"])
    file.rename(file.with_suffix(".away"))
    projects.close()
    try:
        with pytest.raises(ProjectError, match="there is no such file"):
            projects.open_project("two-moons", versions[1])
    finally:
        file.with_suffix(".away").rename(file)


@pytest.mark.parametrize("entry", [999, 1])
def test_an_entry_without_a_patch_is_a_sentence(home, ledger, entry):
    assert ledger.entry(1).kind == "test opened"
    with pytest.raises(ProjectError, match="expected an entry of the ledger with a patch"):
        replay(ledger, entry, home)


def test_the_name_of_weights_is_the_hash_of_their_file_whatever_the_order(tmp_path):
    from hashlib import sha256

    import safetensors.numpy

    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    name = weights.keep(tmp_path, {"b": a.T, "a": a})
    data = weights.file(tmp_path, name).read_bytes()
    assert sha256(data).hexdigest() == name == weights.digest({"a": a, "b": np.asarray(a.T, order="C")})
    found = safetensors.numpy.load(data)
    assert np.array_equal(found["b"], a.T)
    assert np.array_equal(weights.load(tmp_path, name)["a"], a)


@pytest.mark.usefixtures("home")
def test_a_demo_keeps_its_records_and_a_version_has_none(versions):
    original = projects.open_project("two-moons", None)
    assert original.records.digest == puma.load("two-moons").records.digest
    assert original.fingerprint == puma.load("two-moons").fingerprint
    assert projects.open_project("two-moons", versions[0]).records is None


def test_an_ensemble_is_opened_again():
    project = small_project()
    members = [small_project(touched=k).model for k in range(2)]
    members[1][0].weight.data.mul_(2)
    made = Ensemble(members, project.loss)
    again = projects.with_state(project, provenance.state(made))
    x = project.validation.inputs
    assert torch.equal(again(x), made(x))
    assert not torch.equal(again(x), project.model(x))
