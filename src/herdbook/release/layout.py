"""The names in a release's folder. The one place that knows them; it imports nothing of the package."""

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
