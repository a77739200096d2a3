"""The closed sets of label values: stages, error codes, HTTP statuses."""

from __future__ import annotations

STAGES = ("read", "prepare", "encode", "merge", "prefill", "decode", "sample", "write")
"""Where a row's time goes: bytes in, pixels ready, vision tower, visual tokens reduced, prompt, answer, token choice,
result out."""

ERROR_CODES = (
    "fetch_failed",
    "fetch_host_failing",
    "fetch_http_error",
    "fetch_not_found",
    "fetch_redirects",
    "fetch_timeout",
    "fetch_too_large",
    "fetch_unreachable",
    "image_bad_aspect",
    "image_bomb",
    "image_corrupt",
    "image_crashed_decoder",
    "image_empty",
    "image_format_unsupported",
    "image_is_archive",
    "image_is_html",
    "image_is_svg",
    "image_missing",
    "image_mode_unsupported",
    "image_out_of_memory",
    "image_too_complex",
    "image_too_large",
    "image_too_slow",
    "image_truncated",
    "image_unidentified",
    "image_unreadable",
    "input_invalid",
    "logits_hook_failed",
    "messages_invalid",
    "parameter_unsupported",
    "poison",
    "prompt_has_image_token",
    "prompt_missing",
    "prompt_too_long",
    "sample_images",
    "sample_invalid",
    "sample_too_long",
    "sample_turns",
    "sampling_invalid",
    "schema_invalid",
    "skip_does_not_fit",
    "skip_invalid",
    "url_invalid",
    "url_refused",
    "url_scheme",
)
"""Every `error_code` that a row, a request or a training sample may end with; a test holds it against the codes that
the sources raise."""

SERVICE_CODES = (
    "content_encoding_unsupported",
    "content_type_unsupported",
    "context_length_exceeded",
    "engine_lost",
    "insufficient_quota",
    "invalid_json",
    "invalid_value",
    "missing_parameter",
    "model_not_allowed",
    "model_not_found",
    "rate_limit_exceeded",
    "request_timeout",
    "request_too_large",
    "server_is_overloaded",
    "too_many",
    "unexpected",
    "unknown_parameter",
    "unsupported_parameter",
)
"""Further codes that a chat request may end with; `unexpected` is a fault of the service."""

ERROR_STAGES = ("request", "fetch", "decode", "engine", "admission")
"""Where a row or a request failed: what was asked, getting an image, reading it, answering, finding room."""


def error_stage(code: str) -> str:
    """The stage at which rows and requests fail with a code."""
    if code.startswith(("fetch_", "url_")):
        return "fetch"
    if code.startswith("image_"):
        return "decode"
    if code in {"poison", "logits_hook_failed", "engine_lost", "request_timeout", "unexpected"}:
        return "engine"
    if code in {"server_is_overloaded", "rate_limit_exceeded", "insufficient_quota"}:
        return "admission"
    return "request"


STATUSES = ("200", "400", "403", "404", "408", "413", "415", "429", "499", "500", "503")
"""HTTP statuses that a chat request may end with; a test holds them against those that the service answers."""
