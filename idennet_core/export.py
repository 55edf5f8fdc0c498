"""A trial's network as one ONNX file, checked against the network itself."""

import logging
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from idennet_core import streams
from idennet_core.config import CROP_SIZE
from idennet_core.inference import Network

INPUT, OUTPUT = "pixels", "probabilities"
TOLERANCE = 1e-5  # between ONNX Runtime's probabilities and PyTorch's
CHECKED = 8  # pictures


class Exported(nn.Module):
    """The network from grey values to probabilities, with the standardisation of its input."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Grey values 0 to 255 of centre crops [B, 1, 48, 48] to class probabilities [B, classes]."""
        deviation, mean = torch.std_mean(pixels, (2, 3), correction=0, keepdim=True)
        return torch.softmax(self.network((pixels - mean) / deviation.clamp(min=1.0)), 1)


def to_onnx(network: Network, about: Mapping[str, str]) -> bytes:
    """The network as an ONNX file with a free batch size; `about` becomes its metadata.

    Raises ValueError where the packages for it are not installed, RuntimeError where ONNX Runtime finds other
    probabilities than PyTorch.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter is written in it
    except ModuleNotFoundError as error:
        raise ValueError(
            f"an export needs the package {error.name}, which is not installed; next: pip install 'idenctl[export]'"
        ) from None

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    whole = Exported(network).eval()
    pixels = _noise()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about torch
        program = torch.onnx.export(
            whole,
            (pixels,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # traces of the exporter: more bytes than the weights, and this machine's paths
    del model.metadata_props[:]
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in (pixels, pixels[:1]):
        (found,) = session.run([OUTPUT], {INPUT: batch.numpy()})
        with torch.inference_mode():
            difference = float(np.abs(found - whole(batch).numpy()).max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"ONNX Runtime must agree with PyTorch to {TOLERANCE}, but is {difference} off")
    return content


def _noise() -> Tensor:
    """Pictures of noise, each with a contrast of its own, [CHECKED, 1, 48, 48]."""
    generator = streams.generator("export")
    contrast = generator.uniform(0, 127, (CHECKED, 1, 1, 1))
    noise = generator.uniform(-1, 1, (CHECKED, 1, CROP_SIZE, CROP_SIZE))
    return torch.from_numpy((128 + contrast * noise).astype(np.float32))
