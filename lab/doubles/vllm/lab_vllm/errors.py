"""Error answers in the form of vLLM v0.19.1 (checked against its own handlers)."""

from __future__ import annotations

from typing import Any

from lab_serve.http import HttpRequest, HttpResponse, json_response

from lab_vllm.generation import EngineDeadError


class ApiError(Exception):
    """An answer {"error": {message, type, param, code}}.

    `unexpected`: vLLM's handler of any other exception gives it. Starlette raises that exception again after the answer,
    and uvicorn then closes the connection without having announced it.
    """

    def __init__(
        self, code: int, kind: str, message: str, param: str | None = None, *, unexpected: bool = False
    ) -> None:
        super().__init__(message)
        self.code, self.kind, self.message, self.param, self.unexpected = code, kind, message, param, unexpected

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> HttpResponse:
        answer = json_response(self.body(), self.code)
        answer.ends_connection = self.unexpected
        return answer


class UnreadableError(ApiError):
    """A body that is no UTF-8: FastAPI's own answer, which no handler of vLLM's sees."""

    def __init__(self) -> None:
        super().__init__(400, "", "There was an error parsing the body")

    def body(self) -> dict[str, Any]:
        return {"detail": self.message}


def unknown_model(name: object) -> ApiError:
    return ApiError(404, "NotFoundError", f"The model `{name}` does not exist.", "model")


def bad_request(message: str, param: str | None = None, value: object = None) -> ApiError:
    """A ValueError of vLLM; its VLLMValidationError also names the parameter and its value."""
    about = f" (parameter={param}, value={value})" if param else ""
    return ApiError(400, "BadRequestError", message + about, param, unexpected=True)


def engine_dead() -> ApiError:
    """The answer to a request whose engine is gone."""
    return ApiError(500, "InternalServerError", str(EngineDeadError()))


def unsupported_media_type() -> ApiError:
    """A body that is not application/json: 400, not 415 (validate_json_request raises a RequestValidationError)."""
    text = "Unsupported Media Type: Only 'application/json' is allowed"
    return ApiError(400, "Bad Request", f'1 validation error:\n  {text} ["{text}"]')


def validation_error(request: HttpRequest, errors: list[dict[str, Any]], param: str | None = None) -> ApiError:
    """FastAPI's request validation error as vLLM's handler words it."""
    count = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''}:"
    endpoint = ENDPOINT_NAMES.get(request.path, "endpoint")
    place = (
        f'  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/utils.py", line 40, in {endpoint}\n'
        f"    {request.method} {request.path}"
    )
    listed = "\n".join(f"  {error}" for error in errors)
    return ApiError(400, "Bad Request", f"{count}\n{listed}\n\n{place} {errors}", param)


ENDPOINT_NAMES = {
    "/v1/chat/completions": "create_chat_completion",
    "/v1/completions": "create_completion",
    "/v1/embeddings": "create_embedding",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
}
