"""Conjugate gradients side by side: against scipy, dense solutions, and each system alone."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import cg

from puma_dash.core.curvature.krylov import conjugate_gradient

close = torch.testing.assert_close
P = 30


def matrix(spread=3.0, seed=0):
    """Symmetric, with eigenvalues from 1 to 10^spread."""
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(P, P).double()).Q
    return (basis * torch.logspace(0, spread, P).double()) @ basis.T


B = matrix()
V = torch.randn(4, P, generator=torch.Generator().manual_seed(1)).double()


def solve(vectors, tolerance=1e-10, b=B, **more):
    """The block, and how many systems each product was asked for."""
    asked, told = [], []

    def product(directions):
        asked.append(len(directions))
        return directions @ b

    settings = {
        "finished": lambda at: at.residual.norm(dim=1) <= tolerance * vectors.norm(dim=1),
        "max_iterations": 1_000,
        "on_iteration": told.append,
        "on_negative": lambda: ArithmeticError("negative"),
    }
    found = conjugate_gradient(product, vectors, **(settings | more))
    assert told == list(range(1, found.products + 1))
    return found, asked


def test_the_solution():
    found, _ = solve(V)
    close(found.x, torch.linalg.solve(B, V.T).T, rtol=1e-6, atol=1e-8)
    close(found.residual, V - found.x @ B, rtol=0, atol=1e-8)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("products", [1, 2, 5, 12])
def test_every_iterate_is_that_of_scipy(products, preconditioned):
    p = torch.diag(1 / B.diagonal()) if preconditioned else torch.eye(P).double()
    found, _ = solve(V, 0.0, max_iterations=products, precondition=lambda r: r @ p)
    for x, v in zip(found.x, V, strict=True):
        expected, _ = cg(B.numpy(), v.numpy(), rtol=0.0, maxiter=products, M=p.numpy())
        np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-12)
    close(found.residual, V - found.x @ B, rtol=0, atol=1e-9)
    assert found.products == products


@pytest.mark.parametrize("tolerance", [0.3, 1e-2])
def test_a_block_is_each_system_alone(tolerance):
    """An eigenvector is done after one product, and then left as it is."""
    b = matrix(spread=1.5)  # rounding does not grow
    easy = torch.linalg.eigh(b).eigenvectors[:, :1].T
    vectors = torch.cat([V[:2], easy, 100 * V[2:]])
    together, asked = solve(vectors, tolerance, b)
    alone = [solve(v[None], tolerance, b)[0] for v in vectors]
    close(together.x, torch.cat([one.x for one in alone]), rtol=1e-6, atol=1e-8)
    close(together.residual, torch.cat([one.residual for one in alone]), rtol=1e-6, atol=1e-7)
    assert alone[2].products == 1 < together.products
    assert together.products == max(one.products for one in alone)
    assert sum(asked) == sum(one.products for one in alone)


def test_a_preconditioner_saves_products_and_leaves_the_solution():
    near = torch.linalg.inv(B + torch.diag(torch.linspace(0, 1, P)).double())
    plain, _ = solve(V, 1e-8)
    helped, _ = solve(V, 1e-8, precondition=lambda r: r @ near)
    exact, _ = solve(V, 1e-8, precondition=lambda r: r @ torch.linalg.inv(B))
    close(helped.x, plain.x, rtol=1e-4, atol=1e-6)
    assert exact.products == 1 < helped.products < plain.products / 2


def test_a_preconditioned_block_is_each_system_alone():
    near = torch.linalg.inv(B + torch.diag(torch.linspace(0, 40, P)).double())
    vectors = torch.cat([V[:2], V[2:3] @ B @ near])
    together, _ = solve(vectors, 1e-2, precondition=lambda r: r @ near)
    alone = [solve(v[None], 1e-2, precondition=lambda r: r @ near)[0] for v in vectors]
    assert len({one.products for one in alone}) > 1
    close(together.x, torch.cat([one.x for one in alone]), rtol=1e-8, atol=1e-10)


def test_finished_is_told_both_residuals():
    p, seen = torch.diag(1 / B.diagonal()), []
    solve(
        V,
        precondition=lambda r: r @ p,
        finished=lambda at: (
            seen.append((at.residual.clone(), at.pulled.clone())) or at.residual.norm(dim=1) < 1e-3
        ),
    )
    assert len(seen) > 3
    for residual, pulled in seen:
        close(pulled, residual @ p)


@pytest.mark.parametrize("start", [None, torch.ones_like(V)])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_the_error_is_known_from_above(start, share):
    """By a lower bound on the eigenvalues of P B; r^T P r itself may be far below."""
    p = torch.linalg.inv(torch.diag(B.diagonal()) + 20 * torch.eye(P).double())
    least = float(torch.linalg.eigvals(p @ B).real.min())
    exact, told = torch.linalg.solve(B, V.T).T, []

    def finished(at):
        missed = at.x - exact
        true, whole = ((e @ B * e).sum(1) for e in (missed, exact))
        told.append(torch.stack([at.error, true, (at.residual * at.pulled).sum(1)]))
        relative = at.relative_error(V)
        close(relative, at.error / (whole - true + at.error), rtol=1e-6, atol=0)
        return relative <= 1e-8

    solve(V, start=start, precondition=lambda r: r @ p, least=share * least, finished=finished)
    error, true, plain = torch.stack(told, dim=1)
    assert (error >= true * (1 - 1e-6)).all()
    assert share < 1 or (error[-1] < 3 * true[-1]).all()
    assert (plain < true / 2).any()
    assert (true[-1] < 1e-7 * true[0]).all()


def test_an_error_that_is_known_from_too_high_a_bound_stays_positive():
    """Sampled gradients may show more curvature than there is: then the last step says the most."""
    told = []
    solve(V, 1e-6, least=100.0, finished=lambda at: told.append(at.error) or at.residual.norm(dim=1) < 1e-6)
    assert all((error > 0).all() for error in told)


def test_a_first_guess():
    exact = torch.linalg.solve(B, V.T).T
    cold, _ = solve(V, 1e-8)
    warm, _ = solve(V, 1e-8, start=exact + 1e-6 * V)
    close(warm.x, exact, rtol=1e-5, atol=1e-7)
    assert 0 < warm.products < cold.products
    done, _ = solve(V, 1e-8, start=exact)
    assert done.products == 0
    close(done.x, exact)


def test_a_first_guess_is_not_written_to():
    guess = torch.ones_like(V)
    solve(V, start=guess)
    assert (guess == 1).all()


def test_zero_beside_others():
    vectors = torch.cat([V[:1], torch.zeros(1, P).double(), V[1:2]])
    found, _ = solve(vectors)
    assert not found.x[1].any()
    assert not found.residual[1].any()
    close(found.x[[0, 2]], solve(V[:2])[0].x, rtol=1e-7, atol=1e-9)
    assert solve(vectors[1:2])[0].products == 0


def test_negative_curvature_is_told():
    with pytest.raises(ArithmeticError):
        solve(V, b=B - 50 * torch.eye(P).double())
