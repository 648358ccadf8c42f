"""Names and sizes of dtypes, in safetensors and in configurations."""

# Bytes of one element, by safetensors' code of the dtype.
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
# safetensors' code, by the name in a configuration.
DTYPE_CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
FLOATING = ("F64", "F32", "F16", "BF16")
