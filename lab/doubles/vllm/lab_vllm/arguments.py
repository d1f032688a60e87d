"""The command line of `vllm serve` v0.19.1: what it accepts, how it rewrites it, and the words it refuses with.

The arguments are data (arguments.json, see extract_arguments.py); the rewriting follows FlexibleArgumentParser of that version.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from lab_vllm.log import Log

DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
SUBCOMMANDS = ("chat", "complete", "serve", "launch", "bench", "collect-env", "run-batch")
_TOP_USAGE = "vllm [-h] [-v]\n            {chat,complete,serve,launch,bench,collect-env,run-batch} ..."
_MODEL_OPTION_NOTE = (
    "With `vllm serve`, you should provide the model as a positional argument or in a config file instead of via the `--model` option. "
    "The `--model` option will be removed in v0.13."
)


class LoraModules(argparse.Action):
    """--lora-modules name=path or JSON; other words are an error of the whole line, not of the argument."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        modules = []
        for word in values or []:
            try:
                modules.append(word if "=" in word else json.loads(word))
            except json.JSONDecodeError:
                parser.error(f"Invalid JSON format for --lora-modules: {word}")
        setattr(namespace, self.dest, modules)


class Parser(argparse.ArgumentParser):
    """argparse with the wording of Python 3.12 (the image's), whichever Python runs the double."""

    keyword = ""  # of --help=KEYWORD

    def format_help(self) -> str:
        """Groups for --help, everything for --help=all, matching arguments for another keyword."""
        if self._subparsers is not None or Parser.keyword == "all":
            return super().format_help()
        formatter = self._get_formatter()
        word = Parser.keyword.replace("_", "-")
        if word:
            named = [group for group in self._action_groups if (group.title or "").lower() == word]
            actions = [action for group in named for action in group._group_actions] or [
                action for action in self._actions if any(word in flag for flag in action.option_strings)
            ]
            if not actions:
                return f"No group or arguments matching '{word}'.\nUse '--help' to see available groups or '--help=all' to see all.\n"
            formatter.start_section(named[0].title if named else f"Arguments matching '{word}'")
            formatter.add_arguments(actions)
            formatter.end_section()
            return formatter.format_help()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        titles = "\n".join(f"  {group.title}" for group in self._action_groups if group.title and group._group_actions)
        return f"{formatter.format_help()}\nConfig Groups:\n{titles}\n\nSearch by using: `--help=<ConfigGroup>` or `--help=all`.\n"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = ", ".join(map(repr, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} (choose from {choices})")


def parse(argv: list[str]) -> argparse.Namespace:
    """The parsed command line (without the program name).

    Exits 2 with usage and reason like argparse; raises ValueError, TypeError or OSError where vLLM lets them through (exit 1).
    """
    top = Parser(prog="vllm", usage=_TOP_USAGE, description="vLLM CLI (simulated by the lab)")
    top.add_argument("-v", "--version", action="version", version=_data()["version"])
    commands = top.add_subparsers(required=False, dest="subparser")
    for name in SUBCOMMANDS:
        command = commands.add_parser(
            name, prog=f"vllm {name}", usage="vllm serve [model_tag] [options]" if name == "serve" else None
        )
        if name == "serve":
            add_serve_arguments(command)
    arguments = top.parse_args(rewrite(argv))
    if arguments.subparser == "serve":
        if arguments.model_tag is not None:
            arguments.model = arguments.model_tag
        _validate(arguments)
    return arguments


def defaults() -> dict[str, Any]:
    """Default of every argument by destination name."""
    parser = Parser()
    add_serve_arguments(parser)
    return vars(parser.parse_args([]))


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all arguments of `vllm serve`, grouped as in the release."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for entry in _data()["arguments"]:
        options: dict[str, Any] = {"default": entry.get("default")}
        if entry["action"] == "boolean":
            options["action"] = argparse.BooleanOptionalAction
        elif entry["action"] == "store_true":
            options.update(action="store_true", default=False)
        else:
            options["action"] = LoraModules if entry["dest"] == "lora_modules" else entry["action"]
            options["type"] = _conversion(entry["type"], entry)
            options.update({name: entry[name] for name in ("nargs", "choices", "metavar") if name in entry})
        title = entry["group"]
        target: Any = parser
        if title and title not in ("options", "positional arguments"):
            target = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
        if "flags" in entry:
            flags = [flag for flag in entry["flags"] if not (entry["action"] == "boolean" and flag.startswith("--no-"))]
            target.add_argument(*flags, dest=entry["dest"], **options)
        else:
            target.add_argument(entry["dest"], **options)


def rewrite(argv: list[str]) -> list[str]:
    """The command line as argparse gets it: model first, configuration file unfolded, names with dashes, dotted names as JSON."""
    argv = _model_first(argv)
    if "--config" in argv:
        argv = _unfold_config(argv)
    return _dotted_to_json(_dashes(argv))


def _model_first(argv: list[str]) -> list[str]:
    if not argv or argv[0] != "serve":
        return argv
    for index, word in enumerate(argv):
        if re.match(r"^--model(=.+|$)", word):
            Log().warning("argparse_utils.py:191", _MODEL_OPTION_NOTE)
            width = 2 if word == "--model" else 1
            if index + width > len(argv):
                raise IndexError("list index out of range")
            model = argv[index + 1] if width == 2 else word.removeprefix("--model=")
            argv = ["serve", model, *argv[1:index], *argv[index + width :]]
            break
    config = any(re.match(r"^--config(=.+|$)", word) for word in argv)
    named = any(re.match(r"^--served[-_]model[-_]name(=.+|$)", word) for word in argv)
    if len(argv) > 1 and argv[1].startswith("-") and named and not config:
        raise ValueError(
            "`model` should be provided as the first positional argument when using `vllm serve`. "
            "i.e. `vllm serve <model> --<arg> <value>`."
        )
    return argv


def _unfold_config(argv: list[str]) -> list[str]:
    if argv.count("--config") > 1:
        raise AssertionError("More than one config file specified!")
    index = argv.index("--config")
    if index == len(argv) - 1:
        raise ValueError("No config file specified! Please check your command-line arguments.")
    from_file = read_config(argv[index + 1])
    before, after = argv[:index], argv[index + 2 :]
    if argv[0] != "serve":
        return [argv[0], *from_file, *before[1:], *after]
    model_given = len(argv) > 1 and not argv[1].startswith("-")
    if not model_given and "--model" not in from_file:
        raise ValueError(
            "No model specified! Please specify model either as a positional argument or in a config file."
        )
    if model_given:
        return ["serve", argv[1], *from_file, *before[2:], *after]
    return ["serve", *from_file, *before[1:], *after]


def read_config(path: str) -> list[str]:
    """The command-line words of a --config file; YAML only."""
    extension = path.split(".")[-1]
    if extension not in ("yaml", "yml"):
        raise ValueError(f"Config file must be of a yaml/yml type. {extension} supplied")
    import yaml  # the image has it for huggingface_hub; nothing else of the double needs it

    try:
        with open(path, encoding="utf-8") as handle:
            content = yaml.safe_load(handle)
    except Exception:
        Log().error("argparse_utils.py:495", f"Unable to read the config file at {path}. Check path correctness")
        raise
    words: list[str] = []
    for key, value in content.items():
        if isinstance(value, bool):
            words += ["--" + key] if value else []
        elif isinstance(value, list):
            words += ["--" + key, *map(str, value)] if value else []
        elif isinstance(value, dict):
            words += ["--" + key, json.dumps(value)]
        else:
            words += ["--" + key, str(value)]
    return words


def _dashes(argv: list[str]) -> list[str]:
    words: list[str] = []
    for index, word in enumerate(argv):
        if word.startswith("--help="):
            Parser.keyword = word.split("=", 1)[1].lower()
            words.append("--help")
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            head, dot, rest = name[2:].partition(".")
            words.append("--" + head.replace("_", "-") + dot + rest + equals + value)
        elif word.startswith("-O") and word != "-O":
            words += ["--optimization-level", word[3:] if word[2] == "=" else word[2:]]
        elif word == "-O" and index + 1 < len(argv) and argv[index + 1] in {"0", "1", "2", "3"}:
            words.append("--optimization-level")
        else:
            words.append(word)
    return words


def _dotted_to_json(words: list[str]) -> list[str]:
    kept: list[str] = []
    objects: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    duplicates: set[str] = set()
    skip = False
    for index, word in enumerate(words):
        if skip:
            skip = False
            continue
        name, equals, text = word.partition("=")
        if not (word.startswith("-") and "." in name):
            if word.startswith("--"):
                duplicates |= {name} & seen
                seen.add(name)
            kept.append(word)
            continue
        if not equals:
            text = words[index + 1]
            skip = True
        if name.endswith("+"):
            name, text = name[:-1], json.dumps(text.split(","))
        option, *keys = name.split(".")
        try:
            value: Any = json.loads(text)
        except json.JSONDecodeError:
            value = text
        for key in reversed(keys):
            value = {key: value}
        duplicates |= {f"{option}.{key}" for key in _merge(objects.setdefault(option, {}), value)}
    if duplicates:
        Log().warning("argparse_utils.py:351", f"Found duplicate keys {', '.join(sorted(duplicates))}")
    for option, value in objects.items():
        kept += [option, json.dumps(value)]
    return kept


def _merge(into: dict[str, Any], update: dict[str, Any]) -> Iterable[str]:
    duplicates: set[str] = set()
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            duplicates |= {f"{key}.{name}" for name in _merge(into[key], value)}
        elif isinstance(value, list) and isinstance(into.get(key), list):
            into[key] += value
        else:
            duplicates |= {key} & into.keys()
            into[key] = value
    return duplicates


def _validate(arguments: argparse.Namespace) -> None:
    template = arguments.chat_template
    if template and not re.search(r"[{}\n]", template) and "/" in template and not Path(template).exists():
        raise ValueError(
            f"The supplied chat template string ({template}) appears path-like, but doesn't exist! Tried: {template} and {template}"
        )
    if arguments.enable_auto_tool_choice and not arguments.tool_call_parser:
        raise TypeError("Error: --enable-auto-tool-choice requires --tool-call-parser")
    if arguments.enable_log_outputs and not arguments.enable_log_requests:
        raise TypeError("Error: --enable-log-outputs requires --enable-log-requests")


def _data() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("arguments.json").read_text(encoding="utf-8"))
    return content


def loads(text: str) -> Any:
    """json.loads under the name that argparse shows in "invalid loads value"."""
    return json.loads(text)


def human_readable_int(text: str) -> int:
    """8192, 8k (8000), 8K (8192), 25.6k; raises ValueError or ArgumentTypeError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text.strip())
    if not match:
        return int(text)
    number, suffix = match.groups()
    power = "kmgt".index(suffix.lower()) + 1
    if suffix.islower():
        return int(float(number) * 10 ** (3 * power))
    if "." in number:
        raise argparse.ArgumentTypeError(
            f"Decimals are not allowed with binary suffixes like {suffix}. Did you mean to use {number}{suffix.lower()} instead?"
        )
    return int(number) << (10 * power)


def human_readable_int_or_auto(text: str) -> int:
    """As human_readable_int; `auto` and -1 give -1."""
    return -1 if text.strip().lower() in ("-1", "auto") else human_readable_int(text)


def _conversion(name: str, entry: dict[str, Any]) -> Callable[[str], Any]:
    """The function that turns a word into the argument's value; `name` is, for instance, `optional(int)`."""
    wrapper, _, inner = name.partition("(")
    if inner and wrapper in ("optional", "parse"):
        convert = _conversion(inner[:-1], entry)
        return _optional(convert, inner) if wrapper == "optional" else _named_errors(convert, inner[:-1])
    if name == "dataclass":
        return _object_of(entry["class"], entry["fields"])
    known: dict[str, Callable[[str], Any]] = {
        "str": str,
        "int": int,
        "float": float,
        "json": loads,
        "lower": str.lower,
        "human_readable_int": human_readable_int,
        "human_readable_int_or_auto": human_readable_int_or_auto,
        "union_dict_and_str": lambda text: json.loads(text) if re.match(r"(?s)^\s*{.*}\s*$", text) else text,
    }
    return known[name]


def _optional(convert: Callable[[str], Any], inner: str) -> Callable[[str], Any]:
    checked = _named_errors(convert, inner.rstrip(")").split("(")[-1])
    return lambda text: None if text in ("", "None") else checked(text)


def _named_errors(convert: Callable[[str], Any], name: str) -> Callable[[str], Any]:
    def checked(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            function = {"json": "loads"}.get(name, name)
            plain = name in ("int", "float", "str")
            shown = f"<class '{name}'>" if plain else f"<function {function} at 0x7f5e0c3f1d00>"
            raise argparse.ArgumentTypeError(f"Value {text} cannot be converted to {shown}.") from error

    return checked


def _object_of(title: str, fields: list[str]) -> Callable[[str], Any]:
    """Conversion into a configuration object: JSON with known keys only."""
    more = "For further information visit https://errors.pydantic.dev/2.12/v/"

    def refuse(text: str, kind: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"1 validation error for {title}\n{text}\n    {more}{kind}")

    def convert(text: str) -> Any:
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            refuse(f"  Invalid JSON: {error} [type=json_invalid, input_value={text!r}, input_type=str]", "json_invalid")
        if not isinstance(value, dict):
            kind = type(value).__name__
            refuse(
                f"  Input should be an object [type=dataclass_type, input_value={value!r}, input_type={kind}]",
                "dataclass_type",
            )
        for key, item in value.items():
            if key not in fields:
                about = f"[type=unexpected_keyword_argument, input_value={item!r}, input_type={type(item).__name__}]"
                refuse(f"{key}\n  Unexpected keyword argument {about}", "unexpected_keyword_argument")
        return value

    return convert
