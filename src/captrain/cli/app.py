"""All commands by name, and the flags that every command has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Argument, ArgumentCollection, Group, Parameter

from captrain.cli.arguments import Switch
from captrain.cli.logs import set_up_logging
from captrain.errors import UserError
from captrain.version import __version__

COMMANDS = {
    "demo": (
        "captrain.cli.train:demo",
        "Try everything on pictures that it draws itself. Needs no data and no network.",
    ),
    "train": ("captrain.cli.train:train", "Train a captioner on pictures with captions."),
    "caption": ("captrain.cli.caption:caption", "Write captions for pictures."),
    "evaluate": ("captrain.cli.score:evaluate", "Caption a data set and score the captions."),
    "encode": ("captrain.cli.features:encode", "Compute features of pictures once, to train from them."),
    "estimate": ("captrain.cli.estimate:estimate", "Estimate time, disk and network for encoding on several machines."),
    "score": ("captrain.cli.score:score", "Score existing captions against references."),
    "report": ("captrain.cli.train:report", "Write the report of a run as one HTML file."),
    "export": ("captrain.cli.models:export", "Export a trained captioner as a plain model: a folder or one file."),
    "push": ("captrain.cli.models:push", "Upload a trained captioner to the model hub."),
    "models": ("captrain.cli.models:models", "List published captioners by short name."),
    "doctor": ("captrain.cli.doctor:doctor", "Check this machine, and say what to do about what is found."),
}
"""Name to the function that does it (loaded when asked for) and its line of help."""

CONFIG_COMMANDS = {
    "show": ("captrain.cli.config:show", "Print the settings of a training, and where each comes from."),
    "schema": ("captrain.cli.config:schema", "Print the JSON schema of recipes, for editors."),
    "import": ("captrain.cli.config:import_recipe", "Turn a configuration of LAVIS or BLIP into a recipe."),
}

DATA_COMMANDS = {
    "check": ("captrain.cli.data_check:check", "Check a data set and list what is wrong with it."),
    "preview": ("captrain.cli.data:preview", "Write a web page of pictures with their captions."),
    "convert": ("captrain.cli.data:convert", "Convert a data set to another format."),
    "compile": ("captrain.cli.data:compile", "Make a metadata.jsonl from pictures with caption files beside them."),
    "get": ("captrain.cli.data:get", "Download a known data set: COCO, Flickr8k, Flickr30k, CC3M, nocaps."),
    "formats": ("captrain.cli.data_check:formats", "List the data formats that can be read and written."),
}

FEATURES_COMMANDS = {
    "info": ("captrain.cli.features:info", "Say what a feature store holds."),
    "verify": ("captrain.cli.features:verify", "Check every file of a feature store."),
    "merge": ("captrain.cli.features:merge", "Merge several feature stores into one."),
    "convert": (
        "captrain.cli.features:convert",
        "Convert to and from clip-retrieval's embeddings.",
    ),
    "search": ("captrain.cli.features:search", "Find pictures that are similar to a picture."),
}

HELP = ("--help", "-h", "--help-all")
GROUPS = {
    "config": ("Show settings, and import those of other systems.", CONFIG_COMMANDS),
    "data": ("Check, preview, convert and download data sets.", DATA_COMMANDS),
    "features": ("Inspect, check, merge and search feature stores.", FEATURES_COMMANDS),
}
"""Commands that have commands of their own."""

EVERYWHERE = Group("Everywhere", sort_key=100)


def make_app() -> App:
    """The command line, nothing of it run yet."""
    app = App(
        name="captrain",
        help="Train image captioners on your own pictures, measure them, and caption whole collections.",
        version=__version__,
        help_format="plaintext",
        help_flags=HELP,
        default_parameter=Parameter(consume_multiple=True, negative_iterable="no-", show_default=plain_default),
        group_commands=Group("Commands", sort_key=0),
        group_arguments=Group("Arguments", sort_key=0),
        group_parameters=Group("Options", sort_key=1),
        config=[split_commas],
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.meta.suppress_keyboard_interrupt = False
    app["--help"].group = app["--version"].group = EVERYWHERE
    app.register_install_completion_command(help="Complete commands and flags with Tab.", group=EVERYWHERE)
    _add_commands(app, COMMANDS)
    for name, (line, commands) in GROUPS.items():
        group = App(name=name, help=line)
        _add_commands(group, commands)
        app.command(group)

    @app.meta.default
    def run(
        *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        verbose: Annotated[Switch, Parameter(name=("--verbose", "-v"), group=EVERYWHERE)] = False,
        quiet: Annotated[Switch, Parameter(name=("--quiet", "-q"), group=EVERYWHERE)] = False,
    ) -> Any:
        """Set up logging, then run the command that the words name.

        Args:
            verbose: Say more, and show where an error arose.
            quiet: Say nothing but warnings and errors.
        """
        set_up_logging(verbose=verbose, quiet=quiet)
        if verbose and quiet:
            raise UserError("found both --verbose and --quiet, expected one of them; leave one out")
        return app(present_flags(words), exit_on_error=False, print_error=False)

    return app


def _add_commands(owner: App, commands: Mapping[str, tuple[str, str]]) -> None:
    for name, (place, line) in commands.items():
        owner.command(place, name=name, help=line)


def present_flags(words: Sequence[str]) -> list[str]:
    """The words of a command, former spellings of flags by their present ones; only commands on trainings have had others.

    >>> present_flags(["train", "photos", "runs/a", "--keep=off"]), present_flags(["caption", "m", "--keep", "off"])
    (['train', 'photos', 'runs/a', '--cache-features=off'], ['caption', 'm', '--keep', 'off'])
    """
    if not words or words[0] not in ("train", "config"):
        return list(words)
    from captrain.cli.flags import FORMER_FLAGS

    parts = (word.partition("=") for word in words)
    return [f"{FORMER_FLAGS.get(flag, flag)}{equals}{value}" for flag, equals, value in parts]


def split_commas(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take `--freeze vision,bridge` as `--freeze vision bridge`, for every flag that takes several values.

    Only what follows a flag is split; a picture may have a comma in its name.
    """
    for argument in arguments:
        if _takes_several(argument) and any(token.keyword for token in argument.tokens):
            parts = [(token, part) for token in argument.tokens for part in _parts(token.value)]
            argument.tokens = [token.evolve(value=part, index=index) for index, (token, part) in enumerate(parts)]


def plain_default(value: Any) -> str | None:
    """A default as one would type it; nothing if there is none, or if the help text states it.

    >>> plain_default(("language", "bridge")), plain_default(()), plain_default(8)
    ('language bridge', None, '8')
    """
    if isinstance(value, tuple):
        value = " ".join(value)
    return None if value in (None, "") else str(value)


def _takes_several(argument: Argument) -> bool:
    """Whether a flag takes any number of values."""
    return bool(argument.token_count()[1])


def _parts(word: str) -> list[str]:
    """What commas separate; a word without one is left as it is.

    >>> _parts("vision, bridge"), _parts("")
    (['vision', 'bridge'], [''])
    """
    return [part.strip() for part in word.split(",") if part.strip()] if "," in word else [word]
