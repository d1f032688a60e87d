"""What is asked and embedded. Fixed, so that a check can be repeated."""

from __future__ import annotations

from itertools import cycle, islice

#: Below 50 tokens with the chat template around it: the kernels that vLLM uses there were the ones that
#: answered "!!!!" on V100 (vLLM #9618, #10656).
SHORT_QUESTION = "Name three colours."

#: Well above 50 tokens: other kernels.
LONG_QUESTION = (
    "A small company keeps a list of facts about its customers. Alice lives in Paris and works as a pilot. Bob lives in Oslo and "
    "repairs clocks. Chen lives in Nanjing and teaches chemistry at a school. Dora lives in Rome, plays the cello in an orchestra, "
    "and is a friend of Alice, whom she met on a train to Geneva in the spring of 2019. Erik lives in Oslo too, next door to Bob, "
    "and bakes bread. In one sentence: who lives in Nanjing, and what does this person do?"
)

#: For the stream: an answer of many tokens.
COUNT = "Count from one to forty in words, separated by commas."

PAIR = ("The cat sleeps on the warm roof.", "Quarterly revenue grew by seven percent.")

#: Common words that the tokenizer of bge-m3 (XLM-RoBERTa's) has whole; tokens are at least as many as words.
_WEATHER = "the rain came over the hills and the river was high so we stayed at home and read by the fire"
_LAW = "each party shall pay the other within ten days under this contract and no court may change the price"

#: Ollama cuts at 2048 tokens where num_batch is not raised; both texts are longer, and the second is the first's beginning.
LONG_WORDS = 6000
CUT_WORDS = 2500
#: Context that the longer text needs: words may be more than one token.
LONG_TOKENS = 8000


def long_text() -> str:
    """6000 words, whose first 2500 (:func:`cut_text`) speak of something else than the rest."""
    return " ".join([cut_text(), *islice(cycle(_LAW.split()), LONG_WORDS - CUT_WORDS)])


def cut_text() -> str:
    return " ".join(islice(cycle(_WEATHER.split()), CUT_WORDS))
