"""PyTorch in the clear, one thread: what there is to be slower than."""

import numpy as np
import torch
from serving import answer, network, random_input, requests, summary, timed


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


def main() -> None:
    torch.set_num_threads(1)
    for request in requests():
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
