import torch

from sfpo.models.muon import Muon, orthogonalized


def test_one_step_is_that_of_torchs_own_muon_but_for_its_bfloat16():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.arange(24.0).reshape(4, 6) / 24) for _ in range(2))
    optimizers = Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradient = torch.randn(4, 6)
        for weight, optimizer in zip((ours, theirs), optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    # Steps are 0.2 * 0.1 * sqrt(6) times entries of about 1/sqrt(6): 0.02; bfloat16 has 8 bits.
    assert torch.allclose(ours, theirs, atol=3 * 0.02 * 2**-6)
    assert not torch.equal(ours, torch.arange(24.0).reshape(4, 6) / 24)


def test_a_closure_computes_the_loss_and_the_gradients():
    weight = torch.nn.Parameter(torch.ones(2, 3))

    def closure() -> float:
        loss = (weight**2).sum() / 2
        loss.backward()
        return loss.item()

    assert Muon([weight], lr=0.1).step(closure) == 3.0
    assert torch.equal(weight.grad, torch.ones(2, 3)) and (weight < 1).all()


def test_singular_values_come_near_one_and_vectors_stay():
    torch.manual_seed(1)
    for shape in ((5, 8), (8, 5)):
        matrix = torch.randn(shape)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        new = left.T @ orthogonalized(matrix) @ right.T
        assert torch.allclose(new, torch.diag(new.diagonal()), atol=1e-4)
        assert ((new.diagonal() > 0.6) & (new.diagonal() < 1.3)).all() and values.max() > 2
