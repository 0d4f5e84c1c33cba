"""PyTorch in the clear, one thread: what there is to be slower than."""

import numpy as np
import torch
from serving import RATE, answer, network, random_input, random_targets, requests, summary, timed, training_summary


def build(name: str) -> torch.nn.Module:
    _, layers, weights = network(name)
    made = []
    for layer in layers:
        if layer.kind == "conv":
            inputs, outputs, kernel, stride, padding = layer.sizes
            made.append(torch.nn.Conv2d(inputs, outputs, kernel, stride, padding))
        elif layer.kind == "FC":
            made.append(torch.nn.Linear(*layer.sizes))
        elif layer.kind == "MaxPool":
            made.append(torch.nn.MaxPool2d(*layer.sizes))
        else:
            kinds = {"ReLU": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid, "flatten": torch.nn.Flatten}
            made.append(kinds[layer.kind]())
        for part in ("weight", "bias"):
            if f"{layer.name}.{part}" in weights:
                setattr(made[-1], part, torch.nn.Parameter(torch.from_numpy(weights[f"{layer.name}.{part}"])))
    return torch.nn.Sequential(*made)


class Step:
    """Makes steps of training: the loss is summed over outputs and averaged over rows."""

    def __init__(self, name: str, loss: str, batch: int) -> None:
        self.model = build(name)
        self.x = torch.from_numpy(random_input(network(name)[0], batch))
        with torch.inference_mode():
            outputs = self.model(self.x).shape[1]
        self.y = torch.from_numpy(random_targets(batch, outputs))
        self.loss = {"mse": torch.nn.MSELoss, "one_vs_all": torch.nn.BCEWithLogitsLoss}[loss](reduction="sum")
        self.rate = RATE / batch / (2 if loss == "mse" else 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), self.rate)
        self.begun = self.bias

    @property
    def bias(self) -> np.ndarray:
        """The last layer's."""
        return self.model[-1].bias.detach().numpy().copy()

    def __call__(self) -> np.ndarray:
        self.optimizer.zero_grad()
        self.loss(self.model(self.x), self.y).backward()
        self.optimizer.step()
        return self.bias


def trained(request: dict) -> dict:
    """Return what steps of training took; that of many, as one alone is mostly the clock's."""
    step = Step(request["network"], request["train"], request["batch"])
    times, found = timed(step, max(30, request["repeat"]))
    return training_summary(times, step.begun, found, found)


def main() -> None:
    torch.set_num_threads(1)
    for request in requests():
        if "train" in request:
            answer(trained(request))
            continue
        x = torch.from_numpy(random_input(network(request["network"])[0], request["batch"]))
        model = build(request["network"])

        def run(x: torch.Tensor = x, model: torch.nn.Module = model) -> np.ndarray:
            with torch.inference_mode():
                return model(x).numpy()

        timed(run, 20)
        times, result = timed(run, max(30, request["repeat"]))
        answer(summary(request["network"], request["batch"], times, result))


if __name__ == "__main__":
    main()
