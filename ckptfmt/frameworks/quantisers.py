"""The classes of libraries that quantise torch's tensors, by name: tensors that are made of others, and what says how
to compute with them. As of torchao 0.18.0 and optimum-quanto 0.2.7; `tests/test_adapter_torch_quantised.py` looks for
new ones."""

from __future__ import annotations

from collections.abc import Mapping

_AO = "torchao.quantization"
_FLOWS = f"{_AO}.quantize_.workflows"
_COMMON = f"{_AO}.quantize_.common"
_MX = "torchao.prototype.mx_formats"


def _names(of: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module, names in of.items() for name in names)


TENSORS = _names(
    {
        _AO: (
            *("Float8Tensor", "Int4PlainInt32Tensor", "Int4PreshuffledTensor", "Int4Tensor", "Int8Tensor"),
            *("Int4TilePackedTo4dTensor", "IntxOpaqueTensor", "IntxUnpackedToInt8Tensor"),
        ),
        f"{_FLOWS}.nf4.nf4_tensor": ("NF4Tensor",),
        "torchao.optim.subclass_4bit": ("OptimState4bit",),
        "torchao.optim.subclass_8bit": ("OptimState8bit",),
        "torchao.optim.subclass_fp8": ("OptimStateFp8",),
        f"{_MX}.mx_tensor": ("MXTensor",),
        f"{_MX}.nvfp4_tensor": ("NVFP4Tensor",),
        "optimum.quanto.tensor.packed": ("PackedTensor",),
        "optimum.quanto.tensor.weights.qbits": ("WeightQBitsTensor",),
        "optimum.quanto.tensor.weights.qbytes": ("WeightQBytesTensor",),
    }
)
ENUMS = _names(
    {
        f"{_AO}.quant_primitives": ("MappingType", "TorchAODType", "ZeroPointDomain"),
        f"{_COMMON}.kernel_preference": ("KernelPreference",),
        f"{_COMMON}.packing_format": ("PackingFormat",),
        f"{_FLOWS}.float8.float8_packing_format": ("Float8PackingFormat",),
        f"{_FLOWS}.int4.int4_choose_qparams_algorithm": ("Int4ChooseQParamsAlgorithm",),
        f"{_FLOWS}.int4.int4_packing_format": ("Int4PackingFormat",),
        f"{_FLOWS}.intx.intx_choose_qparams_algorithm": ("IntxChooseQParamsAlgorithm",),
        f"{_FLOWS}.intx.intx_packing_format": ("IntxPackingFormat",),
        f"{_FLOWS}.intx.intx_unpacked_to_int8_tensor": ("IntxUnpackedToInt8TensorActivationQuantization",),
        f"{_MX}.config": ("ScaleCalculationMode",),
    }
)
RECORDS = _names(
    {
        f"{_AO}.granularity": ("PerAxis", "PerBlock", "PerGroup", "PerRow", "PerTensor", "PerToken"),
        f"{_FLOWS}.float8.float8_tensor": ("QuantizeTensorToFloat8Kwargs",),
        f"{_FLOWS}.int8.int8_tensor": ("QuantizeTensorToInt8Kwargs",),
        f"{_FLOWS}.nf4.nf4_tensor": ("SubclassTensorArgs",),
        f"{_MX}.mx_tensor": ("QuantizeTensorToMXKwargs",),
        f"{_MX}.nvfp4_tensor": ("QuantizeTensorToNVFP4Kwargs",),
        "torchao.float8.inference": ("Float8MMConfig",),
    }
)
