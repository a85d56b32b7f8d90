"""pfl: its simulated backend and FederatedAveraging, synchronous, five users a round."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel
from work import BATCH, BUFFER, LR, Work, mlp


class Module(torch.nn.Module):
    """The model with the loss that pfl asks it for."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.net(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        return {}


class Counted(FederatedAveraging):
    work: Work

    def train_one_user(self, *args: Any, **kwargs: Any) -> Any:
        return self.work.counted(super().train_one_user, end=False)(*args, **kwargs)


def main() -> None:
    work, module = Work(), Module()
    users = {str(number): list(work.client(number)) for number in range(work.clients)}
    data = FederatedDataset.from_slices(users, get_user_sampler("random", list(users)))
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    rounds = work.jobs // BUFFER
    how = NNAlgorithmParams(
        central_num_iterations=rounds, evaluation_frequency=rounds + 1, train_cohort_size=BUFFER, val_cohort_size=None
    )
    local = NNTrainHyperParams(
        local_num_epochs=1, local_learning_rate=LR, local_batch_size=BATCH, local_max_grad_norm=None
    )
    algorithm = Counted()
    algorithm.work = work
    work.watch_steps()
    work.start()
    algorithm.run(how, SimulatedBackend(data, None), model, local, NNEvalHyperParams(BATCH), [])
    work.stop()
    work.tell(module.net.state_dict())


if __name__ == "__main__":
    main()
