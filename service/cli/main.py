"""The commands of `plumbline`, each a thin layer over the part that does the work."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from service.problems import Problem
from service.settings import ROLES, SettingRefused, Settings, load_settings

if TYPE_CHECKING:
    from socket import socket

    from service.assembly import Assembly

EXIT_CODES = (
    "Exit codes: 0 done, 1 refused or unreachable, 2 a command or setting that makes no sense, 130 interrupted."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Self-hosted model monitoring with an alarm budget that is kept.",
    epilog=EXIT_CODES,
)

Data = Annotated[Path | None, typer.Option("--data", help="Folder of the database, the lake and the buffers.")]
Roles = Annotated[
    str | None, typer.Option("--roles", help=f"What this process does, of {', '.join(ROLES)}; default: all it may.")
]
Output = Annotated[str, typer.Option("--output", "-o", help="text, or json for machines.")]


def console(*, error: bool = False) -> Console:
    """Return a console that colours nothing where it is piped."""
    return Console(stderr=error, highlight=False, soft_wrap=True)


def fail(sentence: str, code: int = 1) -> typer.Exit:
    """Print why it cannot be done, and return the exception that ends the command."""
    console(error=True).print(f"plumbline: {sentence}", markup=False)
    return typer.Exit(code)


def settings_of(**overrides: Any) -> Settings:
    """Return the settings, or end with the sentence that says what is wrong with them."""
    try:
        return load_settings(**overrides)
    except SettingRefused as error:
        raise fail(str(error), 2) from None


def say(document: dict[str, object], text: str, output: str) -> None:
    """Print a document as JSON, or the text, as the user wants."""
    if output == "json":
        console().print_json(data=document)
    elif output == "text":
        console().print(text, markup=False)
    else:
        raise fail(f"--output is text or json, not {output!r}", 2)


def listened(settings: Settings, host: str, port: int) -> tuple[Settings, "socket"]:
    """Return a bound socket, and the settings with its address as the public one where none was set."""
    from service.cli.listening import PortTaken, address, bind

    try:
        listening = bind(host, port)
    except PortTaken as error:
        raise fail(f"{error}; --port chooses another") from None
    if "public_url" in settings.model_fields_set:
        return settings, listening
    return settings.model_copy(update={"public_url": address(listening)}), listening


@contextmanager
def loading() -> Iterator[None]:
    """Keep the collector still while modules are loaded, and spare it what they made: nearly all of it stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    data: Data = None,
    roles: Roles = None,
) -> None:
    """Serve the API, the dashboards and the monitors until a signal ends it."""
    settings = settings_of(data_dir=data, roles=roles)
    if "api" not in settings.roles:
        raise fail("serving without the role api makes no sense; `plumbline worker` does the other roles", 2)
    settings, listening = listened(settings, host, port)

    with loading():  # after the port, which may be taken: it is all that serves
        from service.cli import serving
    from service.cli.listening import address

    def announce(assembly: "Assembly", _stop: object) -> None:
        out = console(error=True)
        out.print(f"Plumbline answers at {address(listening)}", markup=False)
        if key := serving.first_key(assembly):
            out.print(f"The first key, shown once: {key}", markup=False)
            out.print(f"Sign in, once, within a day: {serving.sign_in_url(assembly)}", markup=False)

    try:
        if not serving.run(settings, listening, announce):
            raise fail("the service did not start; its log says why")
    except Problem as refusal:
        raise fail(refusal.detail or refusal.title) from None


@app.command()
def worker(data: Data = None, roles: Roles = None) -> None:
    """Do the work beside the API (seal, run monitors, send) until a signal ends it; any number may work together."""
    settings = settings_of(data_dir=data, roles=roles)
    if roles is None and "roles" not in settings.model_fields_set:
        settings = settings.model_copy(update={"roles": tuple(role for role in ROLES if role != "api")})
    if "api" in settings.roles:
        raise fail("a worker takes no requests; `plumbline serve` has the role api", 2)
    with loading():
        from service.cli import serving

    def announce(_assembly: "Assembly") -> None:
        console(error=True).print(f"Plumbline works: {', '.join(settings.roles)}", markup=False)

    try:
        serving.work(settings, announce)
    except Problem as refusal:
        raise fail(refusal.detail or refusal.title) from None


@app.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the demonstration.")] = 8000,
    data: Data = None,
    days: Annotated[int, typer.Option(min=1, max=60, help="How many of the 60 days are filled in, the newest.")] = 60,
    once: Annotated[bool, typer.Option("--once", help="End as soon as the demonstration is filled.")] = False,
) -> None:
    """Start a service with a demonstration model: 60 days of real data, a trained model, shifts written down."""
    settings = settings_of(data_dir=data)
    if "data_dir" not in settings.model_fields_set:
        settings = settings.model_copy(update={"data_dir": Path("data/demo")})
    settings, listening = listened(settings, "127.0.0.1", port)

    with loading():  # after the port, as above
        from service.cli import demonstration

    try:
        demonstration.run(settings, listening, days=days, once=once, out=console())
    except demonstration.DemonstrationFailed as error:
        raise fail(str(error)) from None


@app.command()
def migrate(data: Data = None, output: Output = "text") -> None:
    """Bring the database to the newest schema."""
    from service.database import Database
    from service.schema import migrate as bring

    settings = settings_of(data_dir=data)
    database = Database(settings.database)
    try:
        head = bring(database)
    finally:
        database.close()
    say({"schema": head}, f"The schema is at {head}.", output)


Verify = Annotated[bool, typer.Option("--verify", help="Read back every byte.")]


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="New or empty folder.")],
    data: Data = None,
    verify: Verify = False,
    output: Output = "text",
) -> None:
    """Write database and lake into a folder, beside a running service, from SQLite or PostgreSQL."""
    with loading():
        from service import backup as backups
    from service.clock import SystemClock

    try:
        done = backups.backup(settings_of(data_dir=data), target, SystemClock(), verify=verify)
    except Problem as problem:
        raise fail(problem.detail or problem.title) from None
    lost = (
        f" {len(done.missing)} files were gone or damaged before, the first {done.missing[0]}." if done.missing else ""
    )
    text = f"{done.rows:,} rows and {done.files:,} files of {done.bytes / 1e6:,.1f} MB are in {target}.{lost}"
    say(done.document(), text, output)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="Folder of the backup.", exists=True, file_okay=False)],
    data: Data = None,
    verify: Annotated[bool, typer.Option("--verify", help="Only read the backup and say whether it is whole.")] = False,
    output: Output = "text",
) -> None:
    """Put a backup into an empty installation; its outbound calls are held until `plumbline resume`."""
    with loading():
        from service import backup as backups
    from service.clock import SystemClock

    settings = settings_of(data_dir=data)
    try:
        if verify:
            manifest = backups.check(source)
            whole = f"The backup of {manifest['made_at']} is whole: {len(manifest['files']):,} files and the database."
            say({"made_at": manifest["made_at"], "files": len(manifest["files"])}, whole, output)
            return
        done = backups.restore(settings, source, SystemClock())
    except Problem as problem:
        raise fail(problem.detail or problem.title) from None
    text = f"{done.rows:,} rows and {done.files:,} files are restored; outbound calls wait for `plumbline resume`."
    say(done.document(), text, output)


@app.command()
def resume(data: Data = None, output: Output = "text") -> None:
    """Let the outbound calls go that were held since a restore."""
    with loading():
        from service import notices
        from service.cli import serving

    assembly = serving.offline(settings_of(data_dir=data))
    try:
        with assembly.database.writing() as session:
            were = notices.resume(session, assembly.clock.now())
    finally:
        assembly.database.close()
    text = "Outbound calls go out again." if were else "No outbound calls were held."
    say({"resumed": were}, text, output)


@app.command("sign-in")
def sign_in(data: Data = None, output: Output = "text") -> None:
    """Print a link that signs a browser in, once, within a day."""
    with loading():
        from service.cli import serving

    assembly = serving.offline(settings_of(data_dir=data))
    try:
        url = serving.sign_in_url(assembly)
    finally:
        assembly.database.close()
    say({"url": url}, url, output)


@app.command()
def version(output: Output = "text") -> None:
    """Print the version of this software."""
    from service.settings import software

    say({"version": software()}, software(), output)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet file of predictions.", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option(help="Name of the model; made where it is missing.")],
    time: Annotated[str, typer.Option(help="Column with the time of the prediction; without zone it is UTC.")],
    url: Annotated[str, typer.Option(envvar="PLUMBLINE_URL", help="The service.")] = "http://127.0.0.1:8000",
    key: Annotated[str, typer.Option(envvar="PLUMBLINE_KEY", help="A key that may ingest and configure.")] = "",
    task: Annotated[str | None, typer.Option(help="binary, multiclass or regression; else inferred.")] = None,
    version: Annotated[str, typer.Option("--model-version", help="Version the records belong to.")] = "1",
    baseline: Annotated[Path | None, typer.Option(help="CSV or Parquet file to compare with.", exists=True)] = None,
    identity: Annotated[str | None, typer.Option("--id", help="Column with the prediction id.")] = None,
    prediction: Annotated[str | None, typer.Option(help="Column with the prediction.")] = None,
    score: Annotated[str | None, typer.Option(help="Column with the probability of the positive class.")] = None,
    scores: Annotated[str | None, typer.Option(help="Columns with one score per class, as prefix*.")] = None,
    ground_truth: Annotated[
        str | None, typer.Option(help="File with ids and labels, or the column with the label.")
    ] = None,
    ignore: Annotated[str, typer.Option(help="Columns that are no features, separated by commas.")] = "",
    window: Annotated[str, typer.Option(help="Window of the default monitors: 1h, 1d, 7d or 1mo.")] = "1d",
    webhook: Annotated[list[str] | None, typer.Option(help="Webhook that is told of alerts; may be repeated.")] = None,
    speed: Annotated[str, typer.Option(help="max, or how many times faster than it happened.")] = "max",
    output: Output = "text",
) -> None:
    """Stream a file in order of time into a running service, and let the monitors judge it as it comes."""
    with loading():
        from service import replay as replaying

    try:
        plan = replaying.Plan(
            file=file,
            model=model,
            version=version,
            task=task,
            baseline=baseline,
            ground_truth=ground_truth,
            window=window,
            webhooks=tuple(webhook or ()),
            speed=replaying.speed_of(speed),
            roles=replaying.Roles(
                time=time,
                identity=identity,
                prediction=prediction,
                score=score,
                scores=scores,
                ignored=tuple(name.strip() for name in ignore.split(",") if name.strip()),
            ),
        )
        with replaying.Client(url, key) as client:
            done = replaying.replay(plan, client, console(error=True))
    except replaying.MakesNoSense as error:
        raise fail(str(error), 2) from None
    except replaying.Refused as error:
        raise fail(str(error)) from None
    say(done.document(), done.sentence(), output)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
