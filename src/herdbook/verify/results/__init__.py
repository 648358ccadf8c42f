"""The part of the level `claims` about results: what each must contain, derived from recipe, lock and records, and compared."""
