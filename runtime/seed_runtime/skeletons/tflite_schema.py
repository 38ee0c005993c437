"""The tables of a TFLite model, with the number and kind of each field: what a skeleton may hold.

Kinds of fields: a letter of `struct` for a number; `s` for a text; `g` for the number of a subgraph, 32 bits with a
sign, or `G` without; the name of a table; `[` and one of these for a vector; the name of a union, the number of whose
type stands in the field before it.

Source: schema.fbs, version 3, as of LiteRT 2.3.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 3
SUBGRAPH: Final = "subgraph"
"""Begin of the names of options that refer to subgraphs."""
IDENTIFIER: Final = b"TFL3"
"""Bytes 4 to 7 of a file."""

_OPTIONS: Final = """
Conv2D: b i i b i i b
DepthwiseConv2D: b i i i b i i
ConcatEmbeddings: i [i [i
LSHProjection: b
Pool2D: b i i i i b
SVDF: i b ?
RNN: b ?
FullyConnected: b b ? ? b [B
Softmax: f
Concatenation: i b
Add: b ?
L2Norm: b
LocalResponseNormalization: i f f f
LSTM: b f f b ?
ResizeBilinear: i i ? ?
Call: G
Reshape: [i
SkipGram: i i ?
SpaceToDepth: i
EmbeddingLookupSparse: b
Mul: b
Pad:
Gather: i i
BatchToSpaceND:
SpaceToBatchND:
Transpose:
Reducer: ?
Sub: b ?
Div: b
Squeeze: [i
SequenceRNN: ? b ?
StridedSlice: i i i i i ?
Exp:
TopKV2:
Split: i
LogSoftmax:
Cast: b b
Dequantize:
MaximumMinimum:
ArgMax: b
Less:
Neg:
PadV2:
Greater:
GreaterEqual:
LessEqual:
Select:
Slice:
TransposeConv: b i i b b
SparseToDense: ?
Tile:
ExpandDims:
Equal:
NotEqual:
Shape: b
Pow:
ArgMin: b
FakeQuant: f f i ?
Pack: i i
LogicalOr:
OneHot: i
LogicalAnd:
LogicalNot:
Unpack: i i
FloorDiv:
Square:
ZerosLike:
Fill:
BidirectionalSequenceLSTM: b f f ? ? ?
BidirectionalSequenceRNN: ? b ? ?
UnidirectionalSequenceLSTM: b f f ? ? ?
FloorMod:
Range:
ResizeNearestNeighbor: ? ?
LeakyRelu: f
SquaredDifference:
MirrorPad: b
Abs:
SplitV: i
Unique: b
ReverseV2:
AddN:
GatherNd:
Cos:
Where:
Rank:
ReverseSequence: i i
MatrixDiag:
Quantize:
MatrixSetDiag:
HardSwish:
If: g g
While: g g
DepthToSpace: i
NonMaxSuppressionV4:
NonMaxSuppressionV5:
ScatterNd:
SelectV2:
Densify:
SegmentSum:
BatchMatMul: ? ? ?
Cumsum: ? ?
CallOnce: g
BroadcastTo:
Rfft2d:
Conv3D: b i i i b i i i
Hashtable: i b b
HashtableFind:
HashtableImport:
HashtableSize:
VarHandle: s s
ReadVariable:
AssignVariable:
Random: q q
Bucketize: [f
Gelu: ?
DynamicUpdateSlice:
UnsortedSegmentProd:
UnsortedSegmentMax:
UnsortedSegmentMin:
UnsortedSegmentSum:
ATan2:
Sign:
Bitcast:
BitwiseXor:
RightShift:
"""
_OPTIONS2: Final = """
StablehloConcatenate: q
StablehloBroadcastInDim: [q
StablehloSlice: [q [q [q
StablehloConvolution: [q [q [q [q [? q q [q q q [q q q [q q q [I
StablehloCustomCall: s ? s i [g [B
StablehloReduce: [q g
StablehloScatter: ? [q [q [q q ? g
StablehloCompare: I I
StablehloDynamicSlice: [q
StablehloPad: [q [q [q
StablehloIota: q
StablehloDotGeneral: [q [q [q [q [I
StablehloReduceWindow: [q [q [q [q [q g
StablehloSort: q ? g
StablehloWhile: g g
StablehloGather: [q [q [q q [q ?
StablehloTranspose: [q
Dilate:
StablehloRngBitGenerator: b
ReduceWindow: i
StableHLOComposite: s g [B b i
StablehloShiftLeft:
StablehloCase: [g
"""


def _tables(text: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Read tables that are written one a line: a name, a colon, and the kinds of its fields.

    These have no names, but that of a field that refers to subgraphs begins with SUBGRAPH.
    """
    lines = (line.partition(":") for line in text.strip().splitlines())
    return {f"{name}Options": tuple(map(_field, enumerate(kinds.split()))) for name, _, kinds in lines}


def _field(numbered: tuple[int, str]) -> tuple[str, str]:
    number, kind = numbered
    return f"{SUBGRAPH if kind[-1] in 'gG' else 'field'} {number}", kind


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _named(text: str) -> tuple[tuple[str, str], ...]:
    """Read the fields of one table: name and kind of each."""
    words = text.split()
    return tuple(zip(words[::2], words[1::2], strict=True))


_OPTIONS_TABLES: Final = _tables(_OPTIONS)
_OPTIONS2_TABLES: Final = _tables(_OPTIONS2)

TABLES: Final = {
    "Model": _named(
        "version I operator_codes [OperatorCode subgraphs [SubGraph description s buffers [Buffer metadata_buffer [i "
        "metadata [Metadata signature_defs [SignatureDef external_buffer_groups [ExternalBufferGroup "
        "external_buffers [ExternalBuffer"
    ),
    "OperatorCode": _named("deprecated_builtin_code b custom_code s version i builtin_code i"),
    "SubGraph": _named("tensors [Tensor inputs [i outputs [i operators [Operator name s debug_metadata_index i"),
    "Tensor": _named(
        "shape [i type b buffer I name s quantization QuantizationParameters is_variable ? "
        "sparsity SparsityParameters shape_signature [i has_rank ? variant_tensors [VariantSubType external_buffer I"
    ),
    "QuantizationParameters": _named(
        "min [f max [f scale [f zero_point [q details_type B details QuantizationDetails quantized_dimension i"
    ),
    "CustomQuantization": _named("custom [B"),
    "BlockwiseQuantization": _named("scales i zero_points i block_size i block_shape [i"),
    "MultiAxisQuantization": _named("scales i zero_points i block_size i quantized_dimensions [i"),
    "SparsityParameters": _named("traversal_order [i block_map [i dim_metadata [DimensionMetadata"),
    "DimensionMetadata": _named(
        "format b dense_size i array_segments_type B array_segments SparseIndexVector "
        "array_indices_type B array_indices SparseIndexVector"
    ),
    "Int32Vector": _named("values [i"),
    "Uint16Vector": _named("values [H"),
    "Uint8Vector": _named("values [B"),
    "VariantSubType": _named("shape [i type b has_rank ?"),
    "Operator": _named(
        "opcode_index I inputs [i outputs [i builtin_options_type B builtin_options BuiltinOptions "
        "custom_options [B custom_options_format b mutating_variable_inputs [? intermediates [i "
        "large_custom_options_offset Q large_custom_options_size Q "
        "builtin_options2_type B builtin_options2 BuiltinOptions2 debug_metadata_index i"
    ),
    "Buffer": _named("data [B offset Q size Q"),
    "ExternalBufferGroup": _named("name s"),
    "ExternalBuffer": _named("id I group I offset Q size_in_bytes Q packing s"),
    "Metadata": _named("name s buffer I"),
    "SignatureDef": _named("inputs [TensorMap outputs [TensorMap signature_key s key s subgraph_index I"),
    "TensorMap": _named("name s tensor_index I"),
    **_OPTIONS_TABLES,
    **_OPTIONS2_TABLES,
}
"""Name and kind of each field, in the order of their numbers."""

UNIONS: Final = {
    "QuantizationDetails": {1: "CustomQuantization", 2: "BlockwiseQuantization", 3: "MultiAxisQuantization"},
    "SparseIndexVector": {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"},
    "BuiltinOptions": dict(enumerate(_OPTIONS_TABLES, 1)),
    "BuiltinOptions2": dict(enumerate(_OPTIONS2_TABLES, 1)),
}
"""Table of each number of a union's type."""

TYPES: Final = _words("""
float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant uint32
uint16 int4 bfloat16 int2 uint4 float8e4m3fn float8e5m2
""")
"""Names of element types by their number."""

OPERATORS: Final = _words("""
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE
EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR
ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND
COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE
HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE
BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1
UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE
STABLEHLO_CLAMP STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE
STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL
STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER
STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE
STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA
STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE
DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT
STABLEHLO_CASE
""")
"""Names of operators by their number."""
