"""The names in a release's folder. The one place that knows them; it imports nothing of the package."""

WEIGHTS_INDEX = "model.safetensors.index.json"
RECIPE = "recipe.yaml"
LOCK = "recipe.lock.json"
CARD = "README.md"
RECORDS = "provenance/records"
SEARCHES = "provenance/searches"
EVALUATIONS = "provenance/evaluations"
ROUTING = "provenance/routing"
INPUTS = "provenance/inputs"
LINEAGE = "provenance/lineage.jsonl"
BOMS = {"1.6": "provenance/bom-1.6.cdx.json", "1.7": "provenance/bom-1.7.cdx.json"}  # by CycloneDX's version
SUMS = "SHA256SUMS"
CLAIMS = "claims.jsonl"
SIGNATURE = "model.sig"
PUBLIC_KEY = "model.sig.pub"

OUTSIDE_SUMS = frozenset({SUMS, CLAIMS, SIGNATURE, PUBLIC_KEY})  # what is about the sums, or signs them


def is_large(name: str) -> bool:
    """Return whether a file of a release holds weights: those are linked, never copied."""
    return name.endswith((".safetensors", ".gguf"))


def input_file(name: str, sha256: str) -> str:
    """Return what a file that the recipe names beside itself is called in a release.

    Args:
        name: Its path, as the lock has it; it may lead out of the recipe's folder.
        sha256: Its digest.
    """
    return f"{INPUTS}/{sha256[:12]}-{name.rpartition('/')[2]}"
