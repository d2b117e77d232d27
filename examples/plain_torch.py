"""SFPO in a training loop of your own, with torch alone: a small network learns x -> x^2, K + 1 passes on each batch.

pip install sfpo
python examples/plain_torch.py
"""

import torch

from sfpo import SlowFast


def main() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    slow_fast = SlowFast(optimizer, num_fast_steps=3, alpha=0.8)
    losses = []
    for _ in range(50):
        batch = torch.rand(64, 1)
        for _ in slow_fast.passes():  # K fast passes, reposition, one slow correction
            loss = torch.nn.functional.mse_loss(model(batch), batch**2)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    if losses[-1] > 0.05 * losses[0]:
        raise RuntimeError(f"the loss fell from {losses[0]:.4f} to {losses[-1]:.4f} alone")
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
