"""Reading and checking request bodies as vLLM v0.19.1 does: same refusals, same status, same words."""

from __future__ import annotations

import json
from typing import Any

from lab_serve.http import HttpRequest

from lab_vllm.errors import ApiError, UnreadableError, bad_request, unsupported_media_type, validation_error

_INTEGERS = (
    "max_tokens",
    "max_completion_tokens",
    "n",
    "seed",
    "top_k",
    "min_tokens",
    "logprobs_count",
    "top_logprobs",
)
_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
RESPONSE_FORMATS = ("text", "json_object", "json_schema", "structural_tag")


def read_body(request: HttpRequest) -> dict[str, Any]:
    """The JSON object of a request. Raises ApiError."""
    media_type = request.headers.get("content-type", "").lower().split(";", maxsplit=1)[0]
    if media_type != "application/json":
        raise unsupported_media_type()
    try:
        body = json.loads(request.body or b"null")
    except UnicodeDecodeError as error:
        raise UnreadableError from error
    except json.JSONDecodeError as error:
        about = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error", "input": {}}
        raise validation_error(request, [{**about, "ctx": {"error": error.msg}}]) from error
    if body is None:
        raise validation_error(request, [{"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}])
    if not isinstance(body, dict):
        text = f"'{type(body).__name__}' object has no attribute 'get'"
        raise ApiError(500, "InternalServerError", text, unexpected=True)
    return body


def check_fields(request: HttpRequest, body: dict[str, Any], required: tuple[str, ...]) -> None:
    """Raise ApiError for missing fields and wrong types, all of them at once."""
    errors: list[dict[str, Any]] = [
        {"type": "missing", "loc": ("body", name), "msg": "Field required", "input": body}
        for name in required
        if name not in body
    ]
    for name in _INTEGERS:
        value = body.get(name)
        if isinstance(value, str) and not value.strip().lstrip("-").isdigit():
            text = "Input should be a valid integer, unable to parse string as an integer"
            errors.append({"type": "int_parsing", "loc": ("body", name), "msg": text, "input": value})
        elif isinstance(value, float) and not value.is_integer():
            text = "Input should be a valid integer, got a number with a fractional part"
            errors.append({"type": "int_from_float", "loc": ("body", name), "msg": text, "input": value})
    for name in _NUMBERS:
        value = body.get(name)
        if isinstance(value, str) and not _is_number(value):
            text = "Input should be a valid number, unable to parse string as a number"
            errors.append({"type": "float_parsing", "loc": ("body", name), "msg": text, "input": value})
    messages = body.get("messages")
    if "messages" in required and messages is not None and not isinstance(messages, list):
        errors.append(
            {"type": "list_type", "loc": ("body", "messages"), "msg": "Input should be a valid list", "input": messages}
        )
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") not in RESPONSE_FORMATS:
        text = "Input should be 'text', 'json_object' or 'json_schema'"
        place = ("body", "response_format", "function-wrap[__log_extra_fields__()]", "type")
        errors.append({"type": "literal_error", "loc": place, "msg": text, "input": form.get("type")})
    if errors:
        raise validation_error(request, errors)
    if body.get("stream_options") and not body.get("stream"):
        raise value_error(request, body, "Stream options can only be defined when `stream=True`.", "stream_options")
    if "messages" in required and body.get("top_logprobs") and not body.get("logprobs"):
        raise value_error(request, body, "when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    if "messages" in required:
        for position, message in enumerate(messages or []):
            if not isinstance(message, dict) or "role" not in message:
                loc = ("body", "messages", position, "role")
                raise validation_error(
                    request, [{"type": "missing", "loc": loc, "msg": "Field required", "input": message}]
                )


def check_either(request: HttpRequest, body: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raise ApiError when all of these fields are missing: one error for each form of the request."""
    if not body.keys() & set(names):
        form = ("body", "function-wrap[__log_extra_fields__()]")
        missing = [{"type": "missing", "loc": (*form, name), "msg": "Field required", "input": body} for name in names]
        raise validation_error(request, missing)


def check_list(request: HttpRequest, body: dict[str, Any], name: str) -> None:
    """Raise ApiError for a field that is there and no list."""
    if not isinstance(body.get(name, []), list):
        text = "Input should be a valid list"
        raise validation_error(
            request, [{"type": "list_type", "loc": ("body", name), "msg": text, "input": body[name]}]
        )


def value_error(request: HttpRequest, body: dict[str, Any], text: str, param: str | None = None) -> ApiError:
    """What a validator of the whole body says."""
    about = f" (parameter={param})" if param else ""
    error = {"type": "value_error", "loc": ("body",), "msg": f"Value error, {text}{about}", "input": body}
    return validation_error(request, [error], param)


def check_sampling(body: dict[str, Any]) -> None:
    """Raise ApiError for values outside their range (sampling_params.py)."""
    number = {name: float(body[name]) for name in _NUMBERS if body.get(name) is not None}
    if number.get("temperature", 0.0) < 0:
        raise bad_request(
            f"temperature must be non-negative, got {number['temperature']}.", "temperature", number["temperature"]
        )
    if not 0 < number.get("top_p", 1.0) <= 1:
        raise bad_request(f"top_p must be in (0, 1], got {number['top_p']}.", "top_p", number["top_p"])
    for name in ("presence_penalty", "frequency_penalty"):
        if not -2 <= number.get(name, 0.0) <= 2:
            raise bad_request(f"{name} must be in [-2, 2], got {number[name]}.")
    whole = {name: int(body[name]) for name in ("n", "top_k", "min_tokens") if body.get(name) is not None}
    if whole.get("n", 1) < 1:
        raise bad_request(f"n must be at least 1, got {whole['n']}.")
    if whole.get("top_k", 0) < -1:
        raise bad_request(f"top_k must be 0 (disable), or at least 1, got {whole['top_k']}.")
    limit = output_limit(body)
    if limit is not None and limit < 1:
        raise bad_request(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    if limit is not None and whole.get("min_tokens", 0) > limit:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={limit}, got {whole['min_tokens']}.")


def output_limit(body: dict[str, Any]) -> int | None:
    """The most tokens the client wants, or None."""
    value = body.get("max_completion_tokens")
    if value is None:
        value = body.get("max_tokens")
    return None if value is None else int(value)


def check_length(prompt_tokens: int, body: dict[str, Any], max_model_len: int) -> int:
    """Room for output, in tokens; raises ApiError when prompt and output do not fit (renderers/params.py)."""
    wanted = output_limit(body) or 0
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    if wanted > max_model_len:
        raise bad_request(
            f"{name}={wanted}cannot be greater than max_model_len=max_total_tokens={max_model_len}. Please request fewer output tokens.",
            name,
            wanted,
        )
    room = max_model_len - wanted
    if prompt_tokens > room or prompt_tokens >= max_model_len:
        seen = min(prompt_tokens, room + 1)
        least = "at least " if seen == room + 1 else ""
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens. However, you requested {wanted} output tokens and your "
            f"prompt contains {least}{seen} input tokens, for a total of {least}{seen + wanted} tokens. Please reduce the length of "
            "the input prompt or the number of requested output tokens.",
            "input_tokens",
            seen,
        )
    return max_model_len - prompt_tokens


def chat_text(messages: list[dict[str, Any]]) -> str:
    """The prompt that a chat template would make."""
    parts = []
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, list):
            content = " ".join(str(item.get("text", "")) for item in content if isinstance(item, dict))
        parts.append(f"<|{message['role']}|> {content} <|eot|>")
    return "\n".join(parts)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
