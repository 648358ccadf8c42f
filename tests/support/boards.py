"""A leaderboard of a recipe: its snapshot is what a test writes."""

BOARD = {
    "snapshot": "board.csv",
    "title": "Board",
    "as_of": "2026-01-02",
    "source": "https://example.org/board",
    "model_column": "name",
    "score_column": "bpb",
    "direction": "lower",
    "task": "held_out",
    "metric": "bits_per_byte",
}
JSON_BOARD = {**BOARD, "snapshot": "board.json", "model_column": "model", "score_column": "score"}
