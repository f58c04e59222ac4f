"""`farm render` as people type it: an option for each parameter whose facts name one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from inspect import Parameter as Argument
from inspect import Signature
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.help_sections import Sectioned
from cli.screen.choice import Show

if TYPE_CHECKING:
    from shared.params.table import Parameter

Table = Mapping[str, "Parameter"]

_ADAPTERS: Final = "Adapters: files that change what a checkpoint draws"
_OTHERS: Final = "Other parameters"
_PICTURES: Final = "Pictures"
_TYPES: Final[dict[str, Any]] = {"integer": int, "number": float, "boolean": bool, "array": list[str]}


class RenderCommand(Sectioned):
    """A command whose options are made when it is used, so that no other command waits for the parameters."""

    is_sweep = False  # a sweep has to vary something

    @cached_property
    def _built(self) -> Any:  # noqa: ANN401 - typer's own copy of click
        from shared.params.scheduling import Scheduling
        from shared.params.table import parameters

        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        made = command(parameters(), parameters(Scheduling), is_sweep=self.is_sweep)
        app.command(cls=Sectioned)(made)
        return typer.main.get_command(app)

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as above
        """Return arguments and options."""
        params: list[Any] = self._built.get_params(ctx)
        return params

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as above
        """Run the command with what was typed."""
        return self._built.invoke(ctx)


class SweepCommand(RenderCommand):
    """The same, and something has to vary."""

    is_sweep = True


def sweep() -> None:
    """Render pictures that differ along axes to ./pictures: --vary "cfg=7,15,20" --vary "sampler=Euler a,LMS"."""


def render() -> None:
    """Render a picture to ./pictures. The farm that is up does it, or one that is started for it and stopped again."""


def command(*tables: Table, is_sweep: bool = False) -> Callable[..., None]:
    """Return the function that typer makes the command of: it takes an option for each parameter that names one."""
    from shared.params.table import groups, lists_of, of_group

    every = ([*of_group(group, table), *lists_of(group, table)] for table in tables for group in groups(table))
    optional = [one for some in every for one in some if one.fact.option]
    named = {one.fact.option.name.strip("-").replace("-", "_").lower(): one for one in optional if one.fact.option}

    def run(
        *,
        lora: list[str] | None,
        hypernet: list[str] | None,
        param: list[str] | None,
        preset: str | None,
        out: Path,
        show: Show,
        as_json: bool,
        vary: list[str] | None = None,
        seeds: str | None = None,
        draft: int | None = None,
        draft_steps: int | None = None,
        preview: bool = False,
        **typed: Any,  # noqa: ANN401 - by facts
    ) -> None:
        from cli import render_request
        from cli.render import preview as previewed
        from cli.render import render as rendered
        from shared.settings import load

        given = {named[name]: value for name, value in typed.items() if value is not None}
        pictures = {one.name: path for one, path in given.items() if one.takes.kind == "picture"}
        lists = {one.name: value for one, value in given.items() if one.is_group}
        single = [_values(one, value) for one, value in given.items() if one.name not in {*pictures, *lists}]
        values = dict(chain.from_iterable(single)) | render_request.read_items(lists)
        # Their paths stay in `values` until the ids of their uploads take the places, because lists keep their order.
        pictures |= {name: Path(str(values[name])) for name in render_request.pictures_in(values)}
        values |= render_request.read_pairs(param or ())
        values["prompt"] = _tagged(str(values["prompt"]), {"lora": lora or (), "hypernet": hypernet or ()})
        params = render_request.nested(values)
        if is_sweep or vary or seeds or draft or draft_steps or preview:
            from cli.sweep import read_sweep

            params["sweep"] = read_sweep(vary or (), seeds, draft, draft_steps)
        if preview:
            raise typer.Exit(previewed(load(), params, pictures, as_json=as_json, preset=preset))
        raise typer.Exit(rendered(load(), params, pictures, out, as_json=as_json, preset=preset, show=show))

    arguments = [*(_argument(name, one) for name, one in named.items()), *_SWEEP, *_OWN]
    run.__signature__ = Signature(arguments)  # type: ignore[attr-defined]
    run.__annotations__ = {argument.name: argument.annotation for argument in arguments}
    run.__doc__ = (sweep if is_sweep else render).__doc__
    return run


def instant(text: str | None) -> str | None:
    """Return the instant that an option names with its zone; without one it is meant in this machine's."""
    try:
        return text and datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not an instant such as 2030-01-31T03:00 or 2030-01-31T03:00Z.") from None


def _tagged(prompt: str, named: Mapping[str, Sequence[str]]) -> str:
    """Return a prompt with a tag for each adapter, by the kind of its tag. Raises BadParameter."""
    from shared.prompts.adapters import BadTag, used

    tags = []
    for kind, texts in named.items():
        for text in texts:
            tag = f"<{kind}:{text}>"
            try:
                is_one = len(used(tag)) == 1
            except BadTag as error:
                raise typer.BadParameter(f"{error}; give {error.accepted}.", param_hint=f"--{kind}") from None
            if not is_one:
                raise typer.BadParameter(f"{text!r} is not a name and a weight.", param_hint=f"--{kind}")
            tags.append(tag)
    return " ".join(filter(None, [prompt, *tags]))


_OWN: Final = (
    Argument(
        "lora",
        Argument.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            list[str] | None,
            typer.Option(
                help="A LoRA or a relative of it, such as ink:0.8; appends its tag to the prompt.",
                metavar="NAME[:WEIGHT]",
                rich_help_panel=_ADAPTERS,
            ),
        ],
    ),
    Argument(
        "hypernet",
        Argument.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            list[str] | None,
            typer.Option(
                help="A hypernetwork, such as haze:0.6; appends its tag to the prompt.",
                metavar="NAME[:WEIGHT]",
                rich_help_panel=_ADAPTERS,
            ),
        ],
    ),
    Argument(
        "param",
        Argument.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            list[str] | None,
            typer.Option(
                help="Any parameter by its name, such as sampling.eta=0.5; docs/parameters.md lists them.",
                metavar="NAME=VALUE",
                rich_help_panel=_OTHERS,
            ),
        ],
    ),
    Argument(
        "preset",
        Argument.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Option(
                help='A preset for all that is not said here; with PROMPT "" for the prompt too.',
                metavar="NAME",
                rich_help_panel=_OTHERS,
            ),
        ],
    ),
    Argument(
        "out",
        Argument.KEYWORD_ONLY,
        default=Path("pictures"),
        annotation=Annotated[Path, typer.Option(help="Folder to write to.", rich_help_panel=_PICTURES)],
    ),
    Argument(
        "show",
        Argument.KEYWORD_ONLY,
        default=Show.AUTO,
        annotation=Annotated[
            Show,
            typer.Option(
                help="Show it in the terminal: auto, kitty, sixel, blocks or never.",
                metavar="HOW",
                rich_help_panel=_PICTURES,
            ),
        ],
    ),
    Argument(
        "as_json",
        Argument.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool, typer.Option("--json", help="Answer in JSON, for programs.", rich_help_panel=_PICTURES)
        ],
    ),
)


_VARIED: Final = "Axes"
_SWEEP: Final = tuple(
    Argument(
        name,
        Argument.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(help=text, metavar=metavar, rich_help_panel=_VARIED)],
    )
    for name, kind, default, metavar, text in (
        (
            "vary",
            list[str] | None,
            None,
            "FIELD=VALUES",
            "An axis, such as cfg=7,15,20-25[3], lora:ink=0,0.5,1 or prompts=@file.txt; up to three.",
        ),
        ("seeds", str | None, None, "same|each", "One seed for all pictures, or each its own, counted up."),
        ("draft", int | None, None, "N", "Only every Nth picture at first; `farm release JOB` queues the others."),
        ("draft_steps", int | None, None, "N", "All pictures with N steps at first; `farm approve JOB` renders them."),
        ("preview", bool, False, None, "Say what it would be, and render nothing."),
    )
)


def _argument(name: str, parameter: Parameter) -> Argument:
    """Return a parameter as an argument of the command's function."""
    option, group = parameter.fact.option, parameter.group
    if option is None or option.is_argument:
        info: Any = typer.Argument(metavar=name.upper(), help=parameter.description)
        return Argument(name, Argument.KEYWORD_ONLY, annotation=Annotated[str, info])
    more: dict[str, Any] = {}
    kind: Any = str if option.beside else _TYPES.get(parameter.kind, str)
    if parameter.takes.kind == "picture":
        kind, more = Path, {"exists": True, "dir_okay": False, "readable": True}
    elif parameter.takes.kind == "instant":
        more = {"callback": instant}
    elif option.sets is not True:
        kind = bool
    info = typer.Option(
        option.name,
        help=_help(parameter),
        metavar=option.metavar or None,
        rich_help_panel=": ".join(filter(None, (group.title, group.summary))) if group else _OTHERS,
        **more,
    )
    return Argument(name, Argument.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info])


def _help(parameter: Parameter) -> str:
    """Return an option's help: what it is, and what it takes where that is short enough."""
    from shared.wording import choices

    schema, option = parameter.schema, parameter.fact.option
    if option and option.help:
        return option.help
    text = parameter.description.removesuffix(".")
    if "enum" in schema:
        return f"{text}: {choices(schema['enum'])}."
    if "minimum" in schema and "maximum" in schema and parameter.takes.kind is None:
        return f"{text} ({schema['minimum']:g} to {schema['maximum']:g})."
    return f"{text}."


def _values(parameter: Parameter, typed: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401 - as typer read it
    """Yield the parameters that an option sets, with their values. Raises BadParameter."""
    option = parameter.fact.option
    if option is None or not (option.beside and option.codec):
        is_flag = option is not None and typed is True
        yield parameter.name, option.sets if option and is_flag else typed
        return
    around = parameter.name.rpartition(".")[0]
    names = (parameter.name, *(f"{around}.{name}" if around else name for name in option.beside))
    try:
        yield from zip(names, option.codec.read(typed), strict=True)
    except ValueError as error:
        raise typer.BadParameter(f"{typed!r} {error}.", param_hint=option.name) from None
