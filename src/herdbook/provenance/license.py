"""License identifiers: SPDX's for those of the Hub with the same meaning."""

# SPDX identifiers that differ from one of the Hub's only in capitals. They exclude identifiers that SPDX deprecated because
# they leave the version open (GPL-3.0 and similar ones), and those that the Hub names without a version.
# Sources: https://spdx.org/licenses and https://huggingface.co/docs/hub/repositories-licenses
_SPDX = """
AFL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSL-1.0 CC-BY-2.0 CC-BY-2.5 CC-BY-3.0
CC-BY-4.0 CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0 CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0
CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0
CDLA-Sharing-1.0 ECL-2.0 EPL-1.0 EPL-2.0 etalab-2.0 EUPL-1.1 EUPL-1.2 ISC LPPL-1.3c MIT MPL-2.0 MS-PL NCSA OFL-1.1
OpenMDW-1.0 OSL-3.0 PostgreSQL Unlicense WTFPL Zlib
"""
_BY_HUB_ID = {name.lower(): name for name in _SPDX.split()}


def spdx(license_: str) -> str | None:
    """Return the SPDX identifier of a license, or None if none is certain to mean the same.

    Args:
        license_: The Hub's identifier, or any other text of the author.
    """
    return _BY_HUB_ID.get(license_.strip().lower())
