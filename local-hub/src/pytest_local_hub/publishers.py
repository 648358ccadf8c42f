"""Trusted publishers: an identity token of a CI is exchanged for one that may write one repository for an hour."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_local_hub.routing import Answer, route

if TYPE_CHECKING:
    from pytest_local_hub.handler import Handler

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"  # RFC 8693
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the name of a kind of token
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - likewise


def _exchange(handler: Handler) -> None:
    try:
        request = json.loads(handler.body())
        asked = (request["grant_type"], request["subject_token_type"])
        subject, resource = str(request["subject_token"]), str(request["resource"])
    except (ValueError, KeyError, TypeError) as error:
        raise _refusal("invalid_request", "a parameter is missing") from error
    if asked != (GRANT, ID_TOKEN):
        raise _refusal("invalid_request", "unsupported grant")
    accepts = handler.store.publishers.get(resource)
    if accepts is None or not accepts(subject):
        raise _refusal("invalid_grant", "No matching trusted publisher")  # which check failed is not revealed
    handler.send_json({
        "access_token": handler.store.issue(resource),
        "token_type": "bearer",
        "expires_in": handler.store.lifetime_s,
        "issued_token_type": ACCESS_TOKEN,
    })  # fmt: skip


def _refusal(code: str, description: str) -> Answer:
    return Answer(400, description, body={"error": code, "error_description": description})


ROUTES = (route("POST", "/oauth/token", _exchange),)
