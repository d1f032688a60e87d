#!/bin/sh
# The same with nothing but curl: a chat, JSON of a given form, a stream, embeddings. Settings: eval "$(stoker endpoints --format sh)"
set -eu

# ask KEY URL BODY [OPTION...]: the key goes by standard input, because a command line can be seen in the process list.
# --retry: again after 408, 429, 5xx as Retry-After says; --fail-with-body: an error has its text and an exit status.
ask() {
    key=$1 url=$2 body=$3
    shift 3
    printf 'Authorization: Bearer %s' "$key" | curl -sS --fail-with-body --retry 4 --retry-connrefused "$@" \
        -H @- -H 'Content-Type: application/json' -d "$body" "$url"
    echo
}

echo "== the gateway"
curl -sS --fail-with-body "$UNIFIED_URL/health"
echo

echo "== a chat"
ask "$LLAMA_API_KEY" "$LLAMA_BASE_URL/chat/completions" '{"model": "'"$LLAMA_MODEL"'", "max_tokens": 16,
    "messages": [{"role": "user", "content": "Name three colours."}]}'

echo "== JSON of a given form"
ask "$QWEN_API_KEY" "$QWEN_BASE_URL/chat/completions" '{"model": "'"$QWEN_MODEL"'", "max_tokens": 64, "temperature": 0,
    "messages": [{"role": "user", "content": "Is \"Alice moved to Oslo\" news to someone who knows that she lives in Paris?"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "news", "strict": true, "schema":
        {"type": "object", "properties": {"news": {"type": "boolean"}}, "required": ["news"], "additionalProperties": false}}}}'

echo "== a stream (-N: each piece as it comes)"
ask "$LLAMA_API_KEY" "$LLAMA_BASE_URL/chat/completions" '{"model": "'"$LLAMA_MODEL"'", "max_tokens": 3, "stream": true,
    "messages": [{"role": "user", "content": "Count to three."}]}' -N

echo "== embeddings, the first hundred signs"
ask "$EMBEDDING_API_KEY" "$EMBEDDING_API_BASE/embeddings" '{"model": "'"$EMBEDDING_MODEL"'", "input": ["one text", "another"]}' |
    cut -c 1-100
