"""llama.cpp's own library, as the module ``llama_cpp`` names its functions and structures.

That module's package, ``llama-cpp-python``, has no wheels, and takes minutes to build. The wheels of ``xllamacpp`` contain the
library, too. Declared here is what its header, ``include/llama.h``, declares in that version, as far as ``Runtime`` calls it.
"""

import ctypes
import functools
import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from herdbook.steps.evaluate.llama_runtime import VERSION

PACKAGE = Path(sys.prefix) / "tools/xllamacpp/xllamacpp"
_Pointer, _Int, _Bool, _Float = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_float
_Count = ctypes.c_uint32
_Many = ctypes.POINTER


class ModelParams(ctypes.Structure):
    """``llama_model_params``."""

    _fields_ = (
        ("devices", _Pointer), ("tensor_buft_overrides", _Pointer),
        ("n_gpu_layers", _Int), ("split_mode", _Int), ("load_mode", _Int), ("lazy_mode", _Int), ("main_gpu", _Int),
        ("tensor_split", _Pointer), ("progress_callback", _Pointer), ("progress_callback_user_data", _Pointer),
        ("kv_overrides", _Pointer),
        ("vocab_only", _Bool), ("check_tensors", _Bool), ("use_extra_bufts", _Bool), ("no_host", _Bool),
        ("no_alloc", _Bool), ("load_mtp", _Bool),
    )  # fmt: skip


class ContextParams(ctypes.Structure):
    """``llama_context_params``."""

    _fields_ = (
        ("n_ctx", _Count), ("n_batch", _Count), ("n_ubatch", _Count), ("n_seq_max", _Count), ("n_rs_seq", _Count),
        ("n_outputs_max", _Count), ("n_outputs_max_per_seq", _Count), ("n_threads", _Int), ("n_threads_batch", _Int),
        ("ctx_type", _Int), ("rope_scaling_type", _Int), ("pooling_type", _Int), ("attention_type", _Int),
        ("flash_attn_type", _Int),
        ("rope_freq_base", _Float), ("rope_freq_scale", _Float), ("yarn_ext_factor", _Float),
        ("yarn_attn_factor", _Float), ("yarn_beta_fast", _Float), ("yarn_beta_slow", _Float),
        ("yarn_orig_ctx", _Count), ("defrag_thold", _Float),
        ("cb_eval", _Pointer), ("cb_eval_user_data", _Pointer), ("type_k", _Int), ("type_v", _Int),
        ("moe_cache_size", ctypes.c_size_t), ("abort_callback", _Pointer), ("abort_callback_data", _Pointer),
        ("embeddings", _Bool), ("offload_kqv", _Bool), ("no_perf", _Bool), ("op_offload", _Bool), ("swa_full", _Bool),
        ("kv_unified", _Bool),
        ("samplers", _Pointer), ("n_samplers", ctypes.c_size_t), ("ctx_other", _Pointer),
    )  # fmt: skip


class Batch(ctypes.Structure):
    """``llama_batch``."""

    _fields_ = (
        ("n_tokens", _Int), ("token", _Many(_Int)), ("embd", _Many(_Float)), ("pos", _Many(_Int)),
        ("n_seq_id", _Many(_Int)), ("seq_id", _Many(_Many(_Int))), ("logits", _Many(ctypes.c_int8)),
    )  # fmt: skip


FUNCTIONS = {
    "llama_backend_init": (None,),
    "llama_model_default_params": (ModelParams,),
    "llama_model_load_from_file": (_Pointer, ctypes.c_char_p, ModelParams),
    "llama_model_free": (None, _Pointer),
    "llama_model_get_vocab": (_Pointer, _Pointer),
    "llama_context_default_params": (ContextParams,),
    "llama_init_from_model": (_Pointer, _Pointer, ContextParams),
    "llama_free": (None, _Pointer),
    "llama_batch_init": (Batch, _Int, _Int, _Int),
    "llama_batch_free": (None, Batch),
    "llama_decode": (_Int, _Pointer, Batch),
    "llama_get_logits": (_Many(_Float), _Pointer),
    "llama_get_memory": (_Pointer, _Pointer),
    "llama_memory_clear": (None, _Pointer, _Bool),
    "llama_vocab_n_tokens": (_Int, _Pointer),
    "llama_vocab_bos": (_Int, _Pointer),
    "llama_vocab_eos": (_Int, _Pointer),
    "llama_tokenize": (_Int, _Pointer, ctypes.c_char_p, _Int, _Many(_Int), _Int, _Bool, _Bool),
    "llama_detokenize": (_Int, _Pointer, _Many(_Int), _Int, ctypes.c_char_p, _Int, _Bool, _Bool),
    "llama_log_set": (None, _Pointer, _Pointer),
}


@functools.cache
def library():
    """Return the functions of the library; None if it is not installed."""
    found = list(PACKAGE.glob("xllamacpp*.so"))
    if not found:
        return None
    loaded = ctypes.CDLL(str(found[0]))
    made = SimpleNamespace(llama_log_callback=ctypes.CFUNCTYPE(None, _Int, ctypes.c_char_p, _Pointer))
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
        setattr(made, name, function)
    return made


def is_installed():
    """Return whether the package is installed that users have for ``Runtime``, in its version."""
    try:
        return importlib.metadata.version("llama-cpp-python") == VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def provide(patch):
    """Let ``Runtime`` run in a test, with that package's llama.cpp, or with the one above."""
    if is_installed():
        return
    if library() is None:
        pytest.skip("needs xllamacpp, which `make` installs")
    patch.setitem(sys.modules, "llama_cpp", SimpleNamespace(llama_cpp=library()))
