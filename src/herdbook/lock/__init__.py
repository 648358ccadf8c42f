"""The lock: what a recipe's names resolved to, with digests. Written by ``herdbook lock``, committed beside the recipe."""

from herdbook.lock.asked import request, uri_of
from herdbook.lock.definition import data_files, labels_of
from herdbook.lock.evaluation import (
    FUNCTION,
    OWN,
    SEED,
    LockedDataSet,
    LockedGroup,
    LockedHarness,
    LockedSuite,
    LockedTask,
    data_set_of,
    locate_source,
)
from herdbook.lock.file import (
    LockedCalibration,
    LockedFile,
    LockedHubFile,
    LockedText,
    check_pinned,
    pin_file,
)
from herdbook.lock.fits import check_fits, misfits
from herdbook.lock.format import (
    LINE_LENGTH,
    OtherVersionError,
    load,
    parse,
    path_for,
    render,
    write,
)
from herdbook.lock.lock import EVERY_MODEL, Lock
from herdbook.lock.predecessor import LockedPredecessor
from herdbook.lock.tuned import LockedGain, LockedResult, LockedSearch, LockedTrial, best_of, splits_of
from herdbook.lock.vocabulary import (
    LockedChoice,
    LockedToken,
    LockedTokenDifference,
    LockedTokens,
    LockedVocabulary,
)
from herdbook.lock.weights import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LockedAdapter, LockedSource, LockedTensor

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "EVERY_MODEL",
    "FUNCTION",
    "LINE_LENGTH",
    "OWN",
    "SEED",
    "Lock",
    "LockedAdapter",
    "LockedCalibration",
    "LockedChoice",
    "LockedDataSet",
    "LockedFile",
    "LockedGain",
    "LockedGroup",
    "LockedHarness",
    "LockedHubFile",
    "LockedPredecessor",
    "LockedResult",
    "LockedSearch",
    "LockedSource",
    "LockedSuite",
    "LockedTask",
    "LockedTensor",
    "LockedText",
    "LockedToken",
    "LockedTokenDifference",
    "LockedTokens",
    "LockedTrial",
    "LockedVocabulary",
    "OtherVersionError",
    "best_of",
    "check_fits",
    "check_pinned",
    "data_files",
    "data_set_of",
    "labels_of",
    "load",
    "locate_source",
    "misfits",
    "parse",
    "path_for",
    "pin_file",
    "render",
    "request",
    "splits_of",
    "uri_of",
    "write",
]
