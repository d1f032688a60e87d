"""An answer as it comes: python stream_chat.py QUESTION"""

from __future__ import annotations

import sys
import time

import openai
import settings


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    client, model = settings.client("LLAMA")
    chats = client.chat.completions  # loads half of the package: not to be counted
    begun, first, ending, usage = time.monotonic(), None, None, None
    try:
        with chats.create(
            model=model,
            messages=[{"role": "user", "content": " ".join(sys.argv[1:])}],
            max_tokens=512,
            stream=True,
            stream_options={"include_usage": True},  # the last piece has the counts, and no choice
        ) as stream:
            for piece in stream:
                usage = piece.usage or usage
                for choice in piece.choices:
                    ending = choice.finish_reason or ending
                    if choice.delta.content:  # the first piece has none, only the role
                        first = first or time.monotonic() - begun
                        print(choice.delta.content, end="", flush=True)
    except (openai.OpenAIError, OSError) as error:
        sys.exit(f"\nbroken off: {error}")
    print()
    # An engine that dies closes the connection: without an error, but also without an end.
    if ending is None:
        sys.exit("broken off: the stream has no end")
    tokens = f", {usage.completion_tokens} tokens" if usage else ""
    print(f"({model}: {ending}, first words after {first or 0:.2f} s{tokens})", file=sys.stderr)


if __name__ == "__main__":
    main()
