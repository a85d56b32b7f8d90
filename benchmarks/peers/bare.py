"""The floor: a PyTorch loop over the jobs, and no server."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from work import BATCH, LR, Work, mlp


def main() -> None:
    work, module = Work(), mlp()
    work.watch_steps()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    work.start()
    for job in range(work.jobs):
        module.load_state_dict(start)
        optimizer = torch.optim.SGD(module.parameters(), lr=LR)
        inputs, labels = work.client(job % work.clients)
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(module(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        work.trained += 1
    work.stop()
    work.tell(module.state_dict())


if __name__ == "__main__":
    main()
