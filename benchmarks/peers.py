"""Convolution libraries behind one interface, each at its best float32 setting.

Every runner takes its constant weights and its input in the layout it likes best, prepared
beforehand, and returns an array of logical shape ``(1, C_out, *spatial)``.
"""

from __future__ import annotations

import math
import tempfile
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import pyconv
from pyconv.benchmarks.timing import Runner, fastest
from pyconv.benchmarks.workloads import Layer

__all__ = [
    "NCNN",
    "NumPy",
    "ONNXRuntime",
    "OpenVINO",
    "Peer",
    "PyConv",
    "Torch",
    "TorchChannelsLast",
    "TorchFunctions",
    "UnsupportedError",
    "convolve_taps",
]

Array = NDArray[Any]


class UnsupportedError(ValueError):
    """The library cannot run this layer."""


class Peer(Protocol):
    """A library to time. Its constructor raises ``ImportError`` where it is not installed."""

    name: str

    @property
    def version(self) -> str:
        """Version of the library."""

    def prepare(self, layer: Layer, x: Array, weight: Array, bias: Array, threads: int) -> Runner:
        """Return a callable that convolves `x`; raise `UnsupportedError` where it cannot."""


class PyConv:
    """A layer of pyconv, its weights packed once, or the function, which packs them in every call.

    Parameters
    ----------
    data_format, algorithm : str
        As for `pyconv.Conv2d`.
    reuse_output : bool
        Whether writing to the same `out` in each call may be tried, as other runtimes do.
    functions : bool
        Call `pyconv.conv2d` and its like in place of a layer.
    """

    name = "pyconv"

    def __init__(
        self,
        data_format: str = "channels_first",
        algorithm: str = "auto",
        *,
        reuse_output: bool = False,
        functions: bool = False,
    ) -> None:
        self._data_format = data_format
        self._algorithm = algorithm
        self._reuse_output = reuse_output
        self._functions = functions

    @property
    def version(self) -> str:
        """Version of pyconv."""
        return pyconv.__version__

    def prepare(self, layer: Layer, x: Array, weight: Array, bias: Array, threads: int) -> Runner:
        """Return the call of a layer or a function of the right rank."""
        arguments: Any = dict(
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            data_format=self._data_format,
            algorithm=self._algorithm,
        )
        if self._functions:
            function: Any = (pyconv.conv1d, pyconv.conv2d, pyconv.conv3d)[layer.rank - 1]
            conv = partial(function, weight=weight, bias=bias, **arguments)
        else:
            layer_class: Any = (pyconv.Conv1d, pyconv.Conv2d, pyconv.Conv3d)[layer.rank - 1]
            conv = layer_class.from_weights(weight, bias, **arguments)
        axes = tuple(range(x.ndim))
        if self._data_format == "channels_last":
            x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            axes = (0, x.ndim - 1, *range(1, x.ndim - 1))
        candidates: list[Runner] = [lambda: conv(x, num_threads=threads).transpose(axes)]
        if self._reuse_output:
            out = conv(x, num_threads=threads)
            candidates.append(lambda: conv(x, out=out, num_threads=threads).transpose(axes))
        return fastest(candidates)


class NumPy:
    """NumPy as a careful user writes it: the faster of one big product and one per kernel tap."""

    name = "numpy"
    version = np.__version__

    def prepare(self, layer: Layer, x: Array, weight: Array, bias: Array, threads: int) -> Runner:
        """Return the faster of both forms; the number of threads is the BLAS library's own."""
        candidates: list[Runner] = [lambda: convolve_taps(layer, x, weight, bias)]
        # A multiplication per group of one channel is hopeless as a matrix product.
        if layer.kind != "depthwise":
            candidates.append(lambda: convolve_windows(layer, x, weight, bias))
        return fastest(candidates)


def convolve_windows(layer: Layer, x: Array, weight: Array, bias: Array) -> Array:
    """Convolve as one matrix product per group over a copy of all windows (im2col).

    Parameters
    ----------
    layer : Layer
        Geometry.
    x : ndarray, shape (N, C_in, *spatial)
    weight : ndarray, shape (C_out, C_in / groups, *kernel)
    bias : ndarray, shape (C_out,)

    Returns
    -------
    ndarray, shape (N, C_out, *output)
    """
    extent = tuple(d * (k - 1) + 1 for k, d in zip(layer.kernel, layer.dilation, strict=True))
    axes = tuple(range(2, x.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(_padded(layer, x), extent, axes)
    every = (1, 1, *layer.stride, *layer.dilation)
    windows = windows[tuple(slice(None, None, step) for step in every)]
    # (N, C, *output, *kernel) -> (N, C, *kernel, *output)
    order = (0, 1, *range(2 + layer.rank, 2 + 2 * layer.rank), *axes)
    columns = windows.transpose(order).reshape(
        len(x), layer.groups, -1, math.prod(layer.output_spatial)
    )
    product = weight.reshape(layer.groups, -1, columns.shape[2]) @ columns
    y: Array = product.reshape(len(x), layer.out_channels, *layer.output_spatial)
    y += bias.reshape(-1, *(1,) * layer.rank)
    return y


def convolve_taps(layer: Layer, x: Array, weight: Array, bias: Array) -> Array:
    """Convolve as a sum over kernel taps; no copy of the windows is ever held.

    Parameters
    ----------
    layer : Layer
        Geometry.
    x : ndarray, shape (N, C_in, *spatial)
    weight : ndarray, shape (C_out, C_in / groups, *kernel)
    bias : ndarray, shape (C_out,)

    Returns
    -------
    ndarray, shape (N, C_out, *output)
    """
    x = _padded(layer, x)
    weight = weight.reshape(layer.groups, -1, weight.shape[1], math.prod(layer.kernel))
    pixels = math.prod(layer.output_spatial)
    y = np.zeros((len(x), layer.groups, weight.shape[1], pixels), x.dtype)
    for index, tap in enumerate(np.ndindex(*layer.kernel)):
        window = tuple(
            slice(offset * dilation, offset * dilation + (size - 1) * stride + 1, stride)
            for offset, dilation, size, stride in zip(
                tap, layer.dilation, layer.output_spatial, layer.stride, strict=True
            )
        )
        part = x[(slice(None), slice(None), *window)].reshape(len(x), layer.groups, -1, pixels)
        factor = weight[..., index]
        y += factor * part if layer.kind == "depthwise" else factor @ part
    y += bias.reshape(layer.groups, -1, 1)
    return y.reshape(len(x), layer.out_channels, *layer.output_spatial)


def _padded(layer: Layer, x: Array) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in layer.padding)))


class Torch:
    """PyTorch on plain contiguous tensors: eager, or with weights packed by oneDNN."""

    name = "torch"
    _channels_last = False
    _packs_once = True

    def __init__(self) -> None:
        self._torch = import_module("torch")

    @property
    def version(self) -> str:
        """Version of PyTorch."""
        return version("torch")

    def prepare(self, layer: Layer, x: Array, weight: Array, bias: Array, threads: int) -> Runner:
        """Return the faster of an eager call and one on packed weights."""
        torch = self._torch
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
        # Inference tensors skip autograd's bookkeeping without a context manager in each call.
        with torch.inference_mode():
            tensors = [self._tensor(array) for array in (x, weight)]
            tensors.append(torch.from_numpy(bias).clone())
            candidates = [self._eager(layer, *tensors)]
            # The operator that torch.compile emits for frozen weights; float32 only.
            if self._packs_once and x.dtype == np.float32:
                candidates.append(self._packed(layer, *tensors))
            return fastest(candidates)

    def _tensor(self, array: Array) -> Any:
        tensor = self._torch.from_numpy(array)
        if not self._channels_last:
            return tensor.clone()
        formats = {4: self._torch.channels_last, 5: self._torch.channels_last_3d}
        if array.ndim not in formats:
            raise UnsupportedError("torch has no channels_last for one axis")
        # A copy, since torch takes some ambiguous strides for channels_last as they are.
        return self._torch.empty_like(tensor, memory_format=formats[array.ndim]).copy_(tensor)

    def _eager(self, layer: Layer, x: Any, weight: Any, bias: Any) -> Runner:
        conv = getattr(self._torch.nn.functional, f"conv{layer.rank}d")
        arguments = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return lambda: conv(x, weight, bias, *arguments).numpy()

    def _packed(self, layer: Layer, x: Any, weight: Any, bias: Any) -> Runner:
        torch = self._torch
        padding, stride, dilation = layer.padding, layer.stride, layer.dilation
        line = layer.rank == 1
        if line:  # an image one pixel high: there is no operator for one axis
            x, weight = x.unsqueeze(2), weight.unsqueeze(2)
            padding, stride, dilation = (0, *padding), (1, *stride), (1, *dilation)
        geometry = (padding, stride, dilation, layer.groups)
        reorder = getattr(torch._C._nn, f"mkldnn_reorder_conv{max(2, layer.rank)}d_weight")
        packed = reorder(weight.to_mkldnn(), *geometry, list(x.shape))
        conv = torch.ops.mkldnn._convolution_pointwise

        def run() -> Any:
            y = conv(x, packed, bias, *geometry, "none", [], "")
            return (y.squeeze(2) if line else y).numpy()

        return run


class TorchFunctions(Torch):
    """`torch.nn.functional.conv2d` and its like alone, which pack the weights in every call."""

    _packs_once = False


class TorchChannelsLast(Torch):
    """PyTorch with input and weights already in channels_last."""

    name = "torch channels_last"
    _channels_last = True


class ONNXRuntime:
    """ONNX Runtime on a model of one ``Conv`` node: plain run or bound buffers."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._onnx = import_module("onnx")
        self._ort = import_module("onnxruntime")

    @property
    def version(self) -> str:
        """Version of ONNX Runtime."""
        return version("onnxruntime")

    def prepare(self, layer: Layer, x: Array, weight: Array, bias: Array, threads: int) -> Runner:
        """Return the faster of ``run`` and ``run_with_iobinding``."""
        ort = self._ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        model = self._model(layer, x, weight, bias).SerializeToString()
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        y = np.empty((len(x), layer.out_channels, *layer.output_spatial), x.dtype)
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)

        def run() -> Array:
            return session.run(["y"], {"x": x})[0]  # type: ignore[no-any-return]

        def run_bound() -> Array:
            session.run_with_iobinding(binding)
            return y

        return fastest([run, run_bound])

    def _model(self, layer: Layer, x: Array, weight: Array, bias: Array) -> Any:
        helper, numpy_helper = self._onnx.helper, self._onnx.numpy_helper
        node = helper.make_node(
            "Conv",
            ["x", "weight", "bias"],
            ["y"],
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=layer.padding * 2,
            dilations=layer.dilation,
            group=layer.groups,
        )
        element = helper.np_dtype_to_tensor_dtype(x.dtype)
        shape = (len(x), layer.out_channels, *layer.output_spatial)
        graph = helper.make_graph(
            [node],
            layer.name,
            [helper.make_tensor_value_info("x", element, x.shape)],
            [helper.make_tensor_value_info("y", element, shape)],
            [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
        )
        # Old enough for every runtime of the last years; newer versions change nothing for Conv.
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


class OpenVINO:
    """OpenVINO in float32, tuned for latency, on shared buffers."""

    name = "openvino"

    def __init__(self) -> None:
        self._openvino = import_module("openvino")
        self._opset = import_module("openvino.opset13")
        self._core = self._openvino.Core()

    @property
    def version(self) -> str:
        """Version of OpenVINO."""
        return version("openvino")

    def prepare(self, layer: Layer, x: Array, weight: Array, bias: Array, threads: int) -> Runner:
        """Return the synchronous call of one infer request."""
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        compiled = self._core.compile_model(self._model(layer, x, weight, bias), "CPU", settings)
        request = compiled.create_infer_request()
        request.set_input_tensor(self._openvino.Tensor(x, shared_memory=True))

        def run() -> Array:
            request.infer(share_inputs=True, share_outputs=True)
            return request.get_output_tensor().data  # type: ignore[no-any-return]

        return run

    def _model(self, layer: Layer, x: Array, weight: Array, bias: Array) -> Any:
        opset = self._opset
        parameter = opset.parameter(x.shape, x.dtype)
        geometry = (layer.stride, layer.padding, layer.padding, layer.dilation)
        if layer.groups == 1:
            y = opset.convolution(parameter, opset.constant(weight), *geometry)
        else:
            grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
            y = opset.group_convolution(parameter, opset.constant(grouped), *geometry)
        y = opset.add(y, opset.constant(bias.reshape(1, -1, *(1,) * layer.rank)))
        return self._openvino.Model([y], [parameter])


class NCNN:
    """Tencent's ncnn in float32 storage and arithmetic, its other options at their defaults."""

    name = "ncnn"

    def __init__(self) -> None:
        self._ncnn = import_module("ncnn")

    @property
    def version(self) -> str:
        """Version of ncnn."""
        return version("ncnn")

    def prepare(self, layer: Layer, x: Array, weight: Array, bias: Array, threads: int) -> Runner:
        """Return one extraction per call; ncnn knows no batch."""
        if len(x) != 1:
            raise UnsupportedError("ncnn has no batch axis")
        net = self._ncnn.Net()
        net.opt.num_threads = threads
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{option}", False)
        float32_tag = b"\0\0\0\0"
        with tempfile.TemporaryDirectory() as folder:
            parameters, weights = Path(folder, "layer.param"), Path(folder, "layer.bin")
            parameters.write_text(self._parameters(layer, weight.size))
            weights.write_bytes(float32_tag + weight.tobytes() + bias.tobytes())
            if net.load_param(str(parameters)) or net.load_model(str(weights)):
                raise UnsupportedError("ncnn cannot load the layer")
        # The clone has the channel stride that ncnn's kernels want.
        mat = self._ncnn.Mat(x[0]).clone()

        def run() -> Array:
            extractor = net.create_extractor()
            extractor.input("x", mat)
            failed, y = extractor.extract("y")
            if failed:
                raise UnsupportedError("ncnn cannot run the layer")
            return np.asarray(y)[np.newaxis]

        return run

    @staticmethod
    def _parameters(layer: Layer, weights: int) -> str:
        """Text of the model; ncnn numbers its parameters and counts axes from the last one."""
        kind = "Convolution" if layer.groups == 1 else "ConvolutionDepthWise"
        suffix = {1: "1D", 2: "", 3: "3D"}[layer.rank]
        values = {0: layer.out_channels, 5: 1, 6: weights}
        if layer.groups > 1:
            values[7] = layer.groups
        for key, numbers in (
            (1, layer.kernel),
            (2, layer.dilation),
            (3, layer.stride),
            (4, layer.padding),
        ):
            for axis, number in enumerate(reversed(numbers)):
                values[key + 10 * axis] = number
        settings = " ".join(f"{key}={value}" for key, value in sorted(values.items()))
        return f"7767517\n2 2\nInput x 0 1 x\n{kind}{suffix} conv 1 1 x y {settings}\n"
