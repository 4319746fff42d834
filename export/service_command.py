"""Commands beside a service: its users, its tokens, and the labels that were given."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ruyicam.cloud.errors import Exit, RuyicamError

from .options import JsonFlag, console, show_table

users_app = typer.Typer(help="Who may use a service.", no_args_is_help=True)
ConfigFlag = Annotated[Path, typer.Option(help="server.toml, whose database it is")]
RoleFlag = Annotated[str, typer.Option(help="viewer, operator or admin")]


def _accounts(config: Path):
    from ruyicam.cloud.serve.accounts import Accounts
    from ruyicam.cloud.serve.config import ServerConfig
    from ruyicam.cloud.serve.store import Store
    from ruyicam.cloud.toml import load_toml

    return Accounts(Store(load_toml(ServerConfig, config).database))


def _role(name: str):
    from ruyicam.cloud.serve.accounts import Role

    if name not in set(Role):
        raise RuyicamError(Exit.USAGE, f"--role is '{name}', expected viewer, operator or admin")
    return Role(name)


def _password() -> str:
    """Asked for twice at a terminal; elsewhere the first line of stdin."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("password: ")
    if getpass.getpass("again: ") != password:
        raise RuyicamError(Exit.USAGE, "the two passwords differ")
    return password


@users_app.command("add")
def add(name: str, config: ConfigFlag, role: RoleFlag = "viewer") -> None:
    """Add a user; the password is asked for, or the first line of stdin."""
    _accounts(config).add_user(name, _role(role), _password())
    console.print(f"{name} may log in as {role}")


@users_app.command("password")
def password(name: str, config: ConfigFlag) -> None:
    """Give a user another password; its logins end."""
    _accounts(config).change_user(name, password=_password())
    console.print(f"{name} has another password")


@users_app.command("role")
def role(name: str, role: str, config: ConfigFlag) -> None:
    """Give a user another role; its logins end."""
    _accounts(config).change_user(name, role=_role(role))
    console.print(f"{name} is {role}")


@users_app.command("remove")
def remove(name: str, config: ConfigFlag) -> None:
    """Remove a user; its logins end."""
    _accounts(config).remove_user(name)
    console.print(f"{name} may not log in any more")


@users_app.command("list")
def list_users(config: ConfigFlag, as_json: JsonFlag = False) -> None:
    """Users and their roles."""
    users = _accounts(config).users()
    if as_json:
        print(json.dumps([{"name": u.name, "role": u.role} for u in users]))
        return
    table = Table("user", "role")
    for u in users:
        table.add_row(u.name, u.role)
    console.print(table)


@users_app.command("token")
def token(
    name: str,
    config: ConfigFlag,
    role: RoleFlag = "viewer",
    days: Annotated[float | None, typer.Option(help="how long it is good; default: until it is removed", min=0.01)] = None,
) -> None:
    """Print a token for a program: 'Authorization: Bearer TOKEN'."""
    print(_accounts(config).new_token(name, _role(role), f"{getpass.getuser()} at the command line", days))


def labels(
    config: ConfigFlag,
    out: Annotated[Path, typer.Option(help="folder for labels.jsonl and windows.safetensors")],
) -> None:
    """Write judged events with their released features, to train on."""
    from ruyicam.cloud.bundles import read_bundle_info
    from ruyicam.cloud.family.config import FamilyConfig
    from ruyicam.cloud.serve.config import ServerConfig
    from ruyicam.cloud.serve.labels import export_labels
    from ruyicam.cloud.serve.store import Store
    from ruyicam.cloud.toml import load_toml

    settings = load_toml(ServerConfig, config)
    infos = [read_bundle_info(path, settings.public_key) for path in (*settings.bundles, *settings.offers.values())]
    known = {info.id.hex(): info for info in infos}
    try:
        count = export_labels(Store(settings.database), FamilyConfig.of_checkpoint(settings.model), known, out)
    except OSError as error:
        raise RuyicamError(Exit.STORAGE, f"cannot write {out}: {error.strerror}") from error
    console.print(f"wrote {count} judged events into {out}")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def sizing(
    cameras: Annotated[list[int] | None, typer.Option(help="how many; may be given several times", min=1)] = None,
    active: Annotated[float, typer.Option(help="share of windows in which something was released", min=0, max=1)] = 0.1,
    keep_days: Annotated[float, typer.Option(help="of released features")] = 7.0,
    figures: Annotated[Path | None, typer.Option(help="JSON of measured figures; default: those of docs/deployment.md")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What so many cameras need of a service: arithmetic on measured figures, with its assumptions."""
    from .sizing import LOAD, Figures, sizes_of

    measured = Figures.of(figures or Path(__file__).with_name("sizing.json"))
    result = sizes_of(cameras or [200, 1000, 10_000], active, keep_days, measured)
    if as_json:
        print(json.dumps(result))
        return
    console.print(
        f"from figures of {measured.machine}: {measured.service_us_per_packet:.0f} us a packet in the service, "
        f"{measured.model_ms_per_window:.1f} ms a window in the model, {measured.quiet_windows_per_s:.0f} windows/s past one "
        f"reader, {measured.stored_bytes_per_packet:.0f} bytes kept of a packet"
    )
    named = {
        "packets_per_s": "packets a second", "uplink_mbit_s": "uplink, Mbit/s", "service_cores": "cores of services",
        "services": "services", "model_cores": "cores of the model", "replicas": "replicas of the model",
        "reader_load": "load of one reader", "stored_gb": f"kept for {keep_days:g} days, GB",
    }  # fmt: skip
    rows = [[name, *(_short(s[key]) for s in result["sizes"])] for key, name in named.items()]
    title = f"{active:.0%} of windows read, processes at {LOAD:.0%} of a core"
    show_table(title, ["cameras", *(f"{s['cameras']:,}" for s in result["sizes"])], rows)
    if over := [s["cameras"] for s in result["sizes"] if not s["carried"]]:
        console.print(f"more than one reader carries: {', '.join(map(str, over))}; divide them among databases")
