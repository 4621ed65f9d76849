"""`jobmon token` and `jobmon revoke`: issue a token, and refuse a token before it expires."""

import sys
from datetime import UTC, datetime, timedelta

import click
from flask import Flask, current_app
from flask.cli import with_appcontext
from pymongo.errors import PyMongoError

from jobmon.rollup.documents import connect_as_writer, describe_missing_right
from jobmon.settings import Settings
from jobmon.store.failures import describe_error, is_unauthorized
from jobmon.web.auth import issue_token, read_claims
from jobmon.web.claims import token_id
from jobmon.web.errors import ApiError
from jobmon.web.revocation import RevokedTokens
from jobmon.web.sessions import ENDS_AT

_MIN_HOURS, _MAX_HOURS = 0.001, 876_000  # of a token: a lifetime of 0 would mean forever
_GRACE_S = 3_600  # how much longer than its token an entry is kept, because clocks differ


def register(app: Flask) -> None:
    """Add the commands to `flask --app wsgi`."""
    app.cli.add_command(token_command)
    app.cli.add_command(revoke_command)


@click.command("token")
@click.option("--sub", required=True, help="The subject: the createdBy of the owner's jobs.")
@click.option("--role", required=True, help="The role, for instance admin.")
@click.option("--hours", default=1.0, show_default=True, help="The token's lifetime.")
@with_appcontext
def token_command(sub: str, role: str, hours: float) -> None:
    """Print a token signed with JOBMON_JWT_SECRET_KEY."""
    if not _MIN_HOURS <= hours <= _MAX_HOURS:  # also refuses `nan`
        raise click.UsageError(f"--hours is a number from {_MIN_HOURS} to {_MAX_HOURS}.")
    settings: Settings = current_app.extensions["jobmon_settings"]
    if settings.jwt_secret_key is None:
        raise click.ClickException(
            "JOBMON_JWT_SECRET_KEY is not set: tokens come from your identity provider."
        )
    click.echo(issue_token(sub, role, timedelta(hours=hours)))


@click.command("revoke")
@click.argument("jti", metavar="JTI", required=False)
@click.option("--token-stdin", is_flag=True, help="Read the token itself from standard input.")
@click.option("--sub", help="Revoke all tokens of a subject that were issued until now.")
@click.option("--list", "listing", is_flag=True, help="Print what is revoked, and until when.")
@with_appcontext
def revoke_command(jti: str | None, token_stdin: bool, sub: str | None, listing: bool) -> None:
    """Refuse a token before it expires, by its `jti`; sessions made with it end, too.

    All web processes refuse it within two seconds. The user in JOBMON_ROLLUP_URI (or else
    JOBMON_MONGO_URI) must be able to write JOBMON_STATE_DB and JOBMON_ROLLUP_DB, like the
    collector's user. Only --token-stdin needs the key for tokens.
    """
    if [bool(jti), token_stdin, bool(sub), listing].count(True) != 1:
        raise click.UsageError("Give one of: a JTI, --token-stdin, --sub, --list.")
    if jti and jti.startswith("eyJ") and jti.count(".") == 2:
        raise click.UsageError("This is a token, not its JTI: use --token-stdin.")
    settings: Settings = current_app.extensions["jobmon_settings"]
    until = None
    if token_stdin:
        if not settings.has_key:
            raise click.ClickException(
                "no key to check the token with: set JOBMON_JWT_SECRET_KEY, JOBMON_JWT_PUBLIC_KEY "
                "or JOBMON_JWT_JWKS_URL as for the web service, or give the token's `jti`."
            )
        jti, until = _read_token(sys.stdin.read().strip().removeprefix("Bearer").strip())
    connection = connect_as_writer(settings)
    revoked = RevokedTokens(connection)
    try:
        if jti is not None:
            revoked.add(jti, until)
            click.echo(f"revoked: {jti}")
        elif sub:
            revoked.add_subject(sub)
            click.echo(f"revoked: all tokens of {sub} issued until now")
        else:
            for entry, validity in revoked.describe_entries():
                click.echo(f"{entry}\t{validity}")
    except PyMongoError as error:
        verb, prefix = ("read", "") if listing else ("write", "not revoked: ")
        if is_unauthorized(error):
            reason = describe_missing_right(settings, settings.state_db, verb, "revoke")
            raise click.ClickException(prefix + reason) from None
        raise click.ClickException(prefix + describe_error(error)) from None
    finally:
        connection.close()


def _read_token(token: str) -> tuple[str, datetime | None]:
    """The token's id, and until when its entry is kept; raises ClickException if it is invalid."""
    try:
        claims = read_claims(token)
    except ApiError as error:
        raise click.ClickException(f"nothing to revoke: {error.message}") from None
    if "exp" not in claims:
        return token_id(claims), None
    # A session continues after this token expires, with new tokens of the same id.
    ends_at = max(int(claims["exp"]), int(claims.get(ENDS_AT, 0)))
    try:
        until = datetime.fromtimestamp(ends_at + _GRACE_S, UTC)
    except (OverflowError, ValueError):  # after the year 9999
        until = None
    return token_id(claims), until
