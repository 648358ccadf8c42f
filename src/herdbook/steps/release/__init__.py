"""The release: everything in one folder, with its lineage, bills of materials and checksums."""
