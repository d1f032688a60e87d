"""Make small models that real engines can serve: `python3 tiny.py OUT`, run with the Python of a real engine (lab/real).

OUT/stoker-lab/<name>/ are repositories of the lab's hub. Architecture, tokenizer, chat template and file layout are real ones; the weights
are random numbers, so answers are words without sense. Nothing is downloaded: the tokenizers learn from Python's own standard library.
The same input makes the same files.
"""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

ORGANISATION = "stoker-lab"
NOTE = "Random weights, made by the Stoker lab. Real architecture, real tokenizer, no sense.\n"
VOCABULARY = 4096
SEED = 2026
# A head of 32 values is the smallest that vLLM's attention on CPUs takes; with 16 the server starts and dies at the first request.
HEADS, KV_HEADS, HEAD_VALUES = 4, 2, 32

LLAMA_TOKENS = {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "pad": "<|end_of_text|>"}
LLAMA_HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML_TOKENS = {"eos": "<|im_end|>", "pad": "<|endoftext|>"}
CHATML_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# In the order of XLM-RoBERTa's ids 0 to 4.
XLMR_TOKENS = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}


def bytes_tokenizer(specials: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer of VOCABULARY tokens, `specials` first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    tokenizer.train([str(text) for text in texts[:100]], trainer)
    return tokenizer


def chat_tokenizer(
    tokens: dict[str, str], more: tuple[str, ...], template: str, context: int
) -> PreTrainedTokenizerFast:
    """The tokenizer of a chat model with `context` tokens, its template in it."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=bytes_tokenizer([*tokens.values(), *more]),
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in tokens.items()},
    )
    wrapped.chat_template = template
    return wrapped


def chat_model(
    out: Path,
    tokenizer: PreTrainedTokenizerFast,
    make: Callable[[Any], Any],
    config: Callable[..., Any],
    context: int,
    **more: Any,
) -> None:
    """A decoder of two layers with random weights in bfloat16, as the published models are."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    torch.manual_seed(SEED)
    model = make(
        config(
            vocab_size=len(tokenizer),
            hidden_size=HEADS * HEAD_VALUES,
            intermediate_size=2 * HEADS * HEAD_VALUES,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=context,
            tie_word_embeddings=False,
            **ids,
            **more,
        )
    ).to(torch.bfloat16)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9, **ids)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def llama(out: Path) -> None:
    tokenizer = chat_tokenizer(LLAMA_TOKENS, LLAMA_HEADERS, LLAMA_TEMPLATE, 16384)
    chat_model(out, tokenizer, LlamaForCausalLM, LlamaConfig, 16384, head_dim=HEAD_VALUES)


def qwen2(out: Path) -> None:
    tokenizer = chat_tokenizer(CHATML_TOKENS, ("<|im_start|>",), CHATML_TEMPLATE, 32768)
    chat_model(out, tokenizer, Qwen2ForCausalLM, Qwen2Config, 32768)


def xlm_roberta(out: Path) -> None:
    """The architecture of bge-m3: 8192 tokens, the first token's vector, normalised."""
    context, values = 8192, HEADS * HEAD_VALUES
    raw = bytes_tokenizer(list(XLMR_TOKENS.values()))
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    roles = {**XLMR_TOKENS, "cls": "<s>", "sep": "</s>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=context, **{f"{role}_token": token for role, token in roles.items()}
    )
    torch.manual_seed(SEED)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=values,
        intermediate_size=2 * values,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        max_position_embeddings=context + 2,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # vLLM 0.32 reads this key, transformers 5 no longer writes it; the published bge-m3 has it.
    written = json.loads((out / "config.json").read_text())
    write_json(out / "config.json", {**written, "position_embedding_type": "absolute"})
    module = "sentence_transformers.models."
    layers = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write_json(
        out / "modules.json",
        [{"idx": at, "name": str(at), "path": path, "type": module + kind} for at, (path, kind) in enumerate(layers)],
    )
    write_json(
        out / "1_Pooling/config.json",
        {"word_embedding_dimension": values, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    )
    write_json(out / "sentence_bert_config.json", {"max_seq_length": context, "do_lower_case": False})


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")


MODELS = {"tiny-llama": llama, "tiny-qwen2": qwen2, "tiny-xlm-roberta": xlm_roberta}


def main(arguments: list[str]) -> int:
    """Write every model below the one argument."""
    if len(arguments) != 1:
        print("usage: tiny.py OUT", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    for name, make in MODELS.items():
        folder = Path(arguments[0]) / ORGANISATION / name
        folder.mkdir(parents=True)
        make(folder)
        (folder / "README.md").write_text(NOTE)
        for file in folder.rglob("*"):  # safetensors are written for their owner alone; the hub reads them as nobody
            file.chmod(0o755 if file.is_dir() else 0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
