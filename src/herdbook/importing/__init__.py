"""Importing mergekit's configurations, from files and from models' cards."""

from herdbook.importing.convert import Imported, import_recipe
from herdbook.importing.mapping import read_mapping

__all__ = ["Imported", "import_recipe", "read_mapping"]
