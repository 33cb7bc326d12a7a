"""The commands, their options, and how they end: what each does is in the module it imports.

Exit status: 0 done; 1 the agent refused, is away, or the app did not become healthy; 2 usage or a start that cannot
be; 130 interrupted. Nobody is ever shown a traceback (``BOREAS_DEBUG=1`` asks for it).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from boreas_agent import __version__
from boreas_agent.errors import BoreasError, StartupError

if TYPE_CHECKING:
    from boreas_agent.cli.client import Agent

DEFAULT_URL = "http://127.0.0.1:8081"
_F = TypeVar("_F", bound=Callable[..., Any])


class Listed(click.Group):
    """A group that lists its commands as they are declared, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _options(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


run_options = _options(
    click.option("--work-dir", metavar="DIR", help="Where the database, releases and logs live.  [/var/lib/boreas-agent]"),
    click.option("--host", metavar="HOST", help="Address to listen on.  [0.0.0.0]"),
    click.option("--port", metavar="PORT", help="Port to listen on.  [8081]"),
    click.option("--config", metavar="FILE", help="Configuration file.  [/etc/boreas-agent/agent.yaml, where it exists]"),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [info]"),
    click.option("--log-format", metavar="FORMAT", help="json or text.  [json]"),
    click.option("--trusted-network", multiple=True, metavar="CIDR", help="Who may change something; repeatable.  [loopback and private]"),
    click.option(
        "--tls-cert", metavar="FILE", help="Serve HTTPS with this certificate (PEM, the chain after it); renewed ones are picked up."
    ),
    click.option("--tls-key", metavar="FILE", help="The private key that belongs to it."),
    click.option("--tls-client-ca", metavar="FILE", help="Callers must show a certificate that one of these CAs signed."),
    click.option("--tls-client-san", "tls_client_san", multiple=True, metavar="NAME", help="… for one of these names; repeatable.  [any]"),
    click.option("--token-file", metavar="FILE", help="Callers must send one of its tokens; lines NAME:SCOPE:TOKEN, mode 0600."),
)


def _noted(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """The options about TLS go past the commands, straight to :func:`_agent`."""
    if value is not None:
        ctx.meta[f"boreas.{parameter.name}"] = value


def _tls_options(*, hidden: bool) -> Callable[[_F], _F]:
    helps = {
        "cacert": "CA that signed the agent's certificate; also BOREAS_CACERT.  [the machine's own CAs]",
        "cert": "Certificate to show to the agent; also BOREAS_CERT.",
        "key": "Its private key, where the file of --cert does not hold it; also BOREAS_KEY.",
    }
    return _options(
        *(
            click.option(f"--{name}", metavar="FILE", hidden=hidden, expose_value=False, callback=_noted, help=text)
            for name, text in helps.items()
        )
    )


where_options = _options(
    click.option("--url", metavar="URL", help=f"The agent to talk to; also BOREAS_URL.  [{DEFAULT_URL}]"),
    click.option(
        "--token",
        metavar="TOKEN",
        help="Sent as a bearer token. Better in the variable BOREAS_TOKEN: options are shown to everybody by ps.",
    ),
    _tls_options(hidden=False),
)
wait_options = _options(
    click.option("--wait/--no-wait", default=True, help="Follow it until it has happened, or return once it is recorded.  [wait]"),
    click.option("--timeout", type=click.FloatRange(min=0), default=300.0, metavar="SECONDS", help="Follow at most that long.  [300]"),
)
output_option = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="[table]")


@click.group(cls=Listed, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="boreas-agent %(version)s")
@run_options
@click.option("--url", hidden=True)
@click.option("--token", hidden=True)
@_tls_options(hidden=True)
@click.pass_context
def cli(ctx: click.Context, /, url: str | None, token: str | None, **flags: object) -> int | None:
    """Desired-state agent for one machine: containers, binaries and scripts.

    Without a command it runs the agent in the foreground.
    """
    if ctx.invoked_subcommand is None:
        if url or token or any(name.startswith("boreas.") for name in ctx.meta):
            raise click.UsageError("--url, --token, --cacert, --cert and --key are for commands that talk to an agent, such as 'status'")
        return _run(flags)
    ctx.obj = (url, token)
    for name, value in flags.items():
        if value not in {None, ()}:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is an option of 'run'; write it after the command, where the command has it"
            )
    return None


@cli.command()
@run_options
def run(**flags: object) -> int:
    """Run the agent in the foreground (the default)."""
    return _run(flags)


def _run(flags: dict[str, object]) -> int:
    from boreas_agent.cli.run import run_agent

    return run_agent({f"--{name.replace('_', '-')}": value for name, value in flags.items()})


@cli.command()
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="YAML or JSON, several documents a file; a folder; - is stdin.")
@click.argument("more", nargs=-1, metavar="[FILE]...")
@wait_options
@where_options
def apply(files: tuple[str, ...], more: tuple[str, ...], wait: bool, timeout: float, url: str | None, token: str | None) -> int:
    """Submit apps and follow them until they are healthy."""
    from boreas_agent.cli.apply import apply_files

    if not files + more:
        raise click.UsageError("name at least one file: boreas-agent apply -f FILE")
    return apply_files(_agent(url, token), files + more, timeout if wait else None)


@cli.command()
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="YAML or JSON, several documents a file; a folder; - is stdin.")
@click.argument("more", nargs=-1, metavar="[FILE]...")
@where_options
def plan(files: tuple[str, ...], more: tuple[str, ...], url: str | None, token: str | None) -> int:
    """Show what apply would change; changes nothing."""
    from boreas_agent.cli.plan import plan_files

    if not files + more:
        raise click.UsageError("name at least one file: boreas-agent plan -f FILE")
    return plan_files(_agent(url, token), files + more)


@cli.command()
@click.argument("app", required=False)
@click.option("-w", "--watch", is_flag=True, help="Keep showing it as it changes, until Ctrl-C.")
@output_option
@where_options
def status(app: str | None, watch: bool, output: str, url: str | None, token: str | None) -> int:
    """Show how the apps are."""
    from boreas_agent.cli.status import show, watch_forever

    return (watch_forever if watch else show)(_agent(url, token), app, output == "json")


@cli.command()
@click.argument("app")
@click.option("--revisions", is_flag=True, help="What was asked for, instead of what came of it.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, metavar="N", help="The newest so many.  [20]")
@output_option
@where_options
def history(app: str, revisions: bool, limit: int, output: str, url: str | None, token: str | None) -> int:
    """Show the deployments of an app, the newest first."""
    from boreas_agent.cli.history import show_history

    return show_history(_agent(url, token), app, "revisions" if revisions else "deployments", limit, output == "json")


@cli.command()
@click.argument("app", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on showing what happens, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, metavar="N", help="Begin with the newest so many.  [50]")
@output_option
@where_options
def events(app: str | None, follow: bool, limit: int, output: str, url: str | None, token: str | None) -> int:
    """Show what happened, to an app or to all of them, the newest last."""
    from boreas_agent.cli.events import follow_events, show_events

    return (follow_events if follow else show_events)(_agent(url, token), app, limit, output == "json")


@cli.command()
@click.argument("app")
@click.option("--to", type=click.IntRange(1), metavar="REVISION", help="Where to go back to.  [the newest older one that was healthy]")
@wait_options
@where_options
def rollback(app: str, to: int | None, wait: bool, timeout: float, url: str | None, token: str | None) -> int:
    """Go back to an older revision of an app."""
    from boreas_agent.cli.change import roll_back

    return roll_back(_agent(url, token), app, to, timeout if wait else None)


@cli.command()
@click.argument("app")
@wait_options
@where_options
def restart(app: str, wait: bool, timeout: float, url: str | None, token: str | None) -> int:
    """Replace all instances of an app by new ones."""
    from boreas_agent.cli.change import restart_app

    return restart_app(_agent(url, token), app, timeout if wait else None)


@cli.command()
@click.argument("app")
@wait_options
@where_options
def remove(app: str, wait: bool, timeout: float, url: str | None, token: str | None) -> int:
    """Stop an app and remove all of it but its history."""
    from boreas_agent.cli.change import remove_app

    return remove_app(_agent(url, token), app, timeout if wait else None)


@cli.command()
@click.argument("app")
@click.option("--reason", metavar="TEXT", help="Shown in status and events.")
@click.option("--seconds", type=float, metavar="SECONDS", help="End the hold by itself after that long.")
@where_options
def hold(app: str, reason: str | None, seconds: float | None, url: str | None, token: str | None) -> int:
    """Leave an app exactly as it is, for people at work on it."""
    from boreas_agent.cli.change import change

    given = {"reason": reason, "seconds": seconds}
    return change(_agent(url, token), app, "hold", {name: value for name, value in given.items() if value is not None})


@cli.command()
@click.argument("app")
@where_options
def release(app: str, url: str | None, token: str | None) -> int:
    """End a hold."""
    from boreas_agent.cli.change import change

    return change(_agent(url, token), app, "release", {})


@cli.command()
@click.option("--reason", metavar="TEXT", help="Shown in status and events.")
@click.option("--disable", is_flag=True, help="End the drain instead (the same as undrain).")
@wait_options
@where_options
def drain(reason: str | None, disable: bool, wait: bool, timeout: float, url: str | None, token: str | None) -> int:
    """Stop all apps and wait until they have; they stay stopped, also over restarts, until the drain is ended."""
    from boreas_agent.cli.drain import drain_node, undrain_node

    if disable:
        return undrain_node(_agent(url, token), timeout if wait else None)
    return drain_node(_agent(url, token), reason or "", timeout if wait else None)


@cli.command()
@wait_options
@where_options
def undrain(wait: bool, timeout: float, url: str | None, token: str | None) -> int:
    """End a drain: what the apps ask for runs again."""
    from boreas_agent.cli.drain import undrain_node

    return undrain_node(_agent(url, token), timeout if wait else None)


@cli.command()
@click.argument("app")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--tail", metavar="N", help="The last so many lines.  [all]")
@click.option("--since", metavar="TIME", help="From that time on (RFC 3339), or that many seconds back.")
@click.option("--stream", type=click.Choice(("stdout", "stderr")), help="One of the two.  [both]")
@click.option("--replica", type=click.IntRange(0), metavar="K", help="One replica.  [all]")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@where_options
def logs(app: str, follow: bool, url: str | None, token: str | None, timestamps: bool, **query: object) -> int:
    """Show what an app writes."""
    from boreas_agent.cli.logs import show_logs

    given = {name: str(value) for name, value in query.items() if value is not None}
    return show_logs(_agent(url, token), app, given, follow=follow, timestamps=timestamps)


@cli.command()
@click.argument("query", required=False)
@click.option("--work-dir", metavar="DIR", help="The work dir of the agent; otherwise found as the agent finds it.")
@click.option("--config", metavar="FILE", help="The agent's configuration file, which may name the work dir.")
@output_option
def sql(query: str | None, work_dir: str | None, config: str | None, output: str) -> int:
    """Ask the agent's history in SQL: read-only, whether the agent runs or not. Without QUERY it is read from stdin."""
    from boreas_agent.cli.sql import ask

    return ask(query, work_dir, config, output == "json")


def _agent(url: str | None, token: str | None) -> Agent:
    """Flag after the command > flag before it > environment > default."""
    from boreas_agent.cli.client import Agent
    from boreas_agent.cli.tls import TlsFiles

    context = click.get_current_context()
    early_url, early_token = context.obj or (None, None)
    url = url or early_url or os.environ.get("BOREAS_URL") or DEFAULT_URL
    files = {
        name: context.meta.get(f"boreas.{name}") or os.environ.get(f"BOREAS_{name.upper()}") or "" for name in ("cacert", "cert", "key")
    }
    return Agent.at(url, token or early_token or os.environ.get("BOREAS_TOKEN") or "", TlsFiles(**files))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    _open_standard_streams()
    try:
        code = cli.main(args=arguments, prog_name="boreas-agent", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left; what is still buffered must not fail at exit
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        click.echo(f"boreas-agent: {error.format_message()}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BoreasError as error:
        click.echo(f"boreas-agent: {error}", err=True)
        return 2 if isinstance(error, StartupError) else 1
    except Exception as error:
        if os.environ.get("BOREAS_DEBUG"):
            raise
        click.echo(f"boreas-agent: internal error: {type(error).__name__}: {error} (BOREAS_DEBUG=1 shows where)", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _open_standard_streams() -> None:
    """Started with stdout closed, the next file opened (a database, a socket) would become the place that prints go to."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, so this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # for as long as the process lives
        with contextlib.suppress(AttributeError):
            getattr(sys, name).reconfigure(errors="backslashreplace")  # an ASCII locale must not turn a message into a traceback
