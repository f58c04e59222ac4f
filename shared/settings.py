"""The farm's own configuration: `FARM_*` environment variables, read once at start, and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from shared import embedded_addresses, wording
from shared import setting_forms as forms
from shared.accounts.limits import NO_LIMITS, OwnerLimits, of_role
from shared.errors import SettingsError
from shared.models.folders import ModelFolders
from shared.redis_url import SCHEMES as REDIS_SCHEMES
from shared.setting_forms import ApiKeys, Folder, Quantity
from shared.suggest import nearest

PREFIX = "FARM_"
EVERYBODY = "*"  # in a list of owners
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_OF_TESTS = "FARM_TEST_"
_SECRETS = frozenset({"api_keys", "api_key", "secret_key", "oidc_client_secret"})  # the API's and the client's alone
_REPLACED = {  # setting -> the one that takes its place, and how
    "resident_checkpoints": ("resident_bytes", "set it to a quantity such as 12GB, or leave both unset for auto")
}
_LONGEST = 200  # characters of a value that a message repeats
_WITH_PASSWORDS = frozenset({"database_url", "redis_url"})
_PASSWORD = re.compile(r"://.*@|\?.*")  # and the user before it; or what follows the address
_PLAIN = re.compile(r"(\w+://)?[\w.-]*(:\d{1,5})?(/[\w./-]*)?")  # an address without room for a password


class Limits(BaseModel):
    """The limits of admission for one job, and of one owner's source pictures."""

    model_config = ConfigDict(frozen=True)

    min_size: int = 64
    max_size: int = 4096
    max_pixels: int = 2048 * 2048
    max_steps: int = 150
    max_cfg_scale: float = 30
    max_count: int = 1000
    max_prompt_chars: int = 10_000
    first_checkpoint: str = "scenes-v1"
    max_upload_mb: int = 32
    max_upload_megapixels: int = 32
    max_uploads_mb_per_owner: int = 4096
    upload_days: int = 7
    max_open_jobs_per_owner: int = 10_000
    webhook_networks: str = ""
    urgent_owners: tuple[str, ...] | None = None  # whose jobs may be urgent; None: everybody's
    of_owner: OwnerLimits = NO_LIMITS  # of all jobs of the owner who asks

    def may_be_urgent(self, owner: str) -> bool:
        return self.urgent_owners is None or owner in self.urgent_owners

    @property
    def inside_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of its own that the farm sends webhooks to."""
        return forms.networks(self.webhook_networks)

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mb * 2**20

    @property
    def max_uploads_bytes_per_owner(self) -> int:
        return self.max_uploads_mb_per_owner * 2**20

    @property
    def max_upload_pixels(self) -> int:
        return self.max_upload_megapixels * 10**6


class Settings(BaseModel):
    """Every setting, with its default; `FARM_DATABASE_URL` sets `database_url`, and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    home: Folder = Field(Path("var").absolute(), description="Where an embedded farm keeps its data.")
    models: Annotated[ModelFolders, BeforeValidator(forms.model_folders)] = Field(
        ModelFolders((Path("models").absolute(),)), description="Folders with model files, with a colon between them."
    )
    database_url: Annotated[str, forms.url_of("postgresql")] = Field(
        "", repr=False, description="URL of PostgreSQL; unset: embedded."
    )
    redis_url: Annotated[str, forms.url_of(*REDIS_SCHEMES), AfterValidator(forms.redis_url)] = Field(
        "", repr=False, description="URL of Redis; unset: embedded."
    )
    styles: str = Field("", description="CSV file of styles; unset: styles.csv in FARM_HOME.")
    wildcards: str = Field(
        "", description="Folder of wildcards, text files that prompts name as __name__; unset: wildcards in FARM_HOME."
    )
    storage_url: str = Field(
        "", description="Storage of pictures: a folder or s3://bucket/prefix; unset: in FARM_HOME."
    )
    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8321, ge=0, le=65535, description="Port that the API listens on; 0: any free one.")
    api_keys: ApiKeys = Field(
        default_factory=dict, repr=False, description="owner:key pairs, beside the keys of `farm keys`."
    )
    admins: Annotated[str, AfterValidator(forms.owners)] = Field(
        "",
        description="Owners whose keys in FARM_API_KEYS are an admin's, comma-separated; others are a user's. Also "
        "people who sign in at a proxy or a provider.",
    )
    user_limits: Annotated[str, AfterValidator(forms.limits)] = Field(
        "",
        description="Limits of each owner with a user's key, such as queued=100.",
    )
    operator_limits: Annotated[str, AfterValidator(forms.limits)] = Field(
        "", description="The same of each owner with an operator's key."
    )
    admin_limits: Annotated[str, AfterValidator(forms.limits)] = Field(
        "", description="The same of each owner with an admin's key, and of `local` on a farm without keys."
    )
    urgent_owners: Annotated[str, AfterValidator(forms.owners)] = Field(
        "", description="Owners who may submit urgent jobs, comma-separated; *: all. Without keys everybody may."
    )
    allowed_hosts: str = Field("", description="Further Host names that the farm answers to, comma-separated.")
    trusted_proxies: Annotated[str, AfterValidator(forms.proxies)] = Field(
        "127.0.0.0/8,::1",
        description="Proxies whose X-Forwarded-For and -Proto count: addresses and networks, comma-separated.",
    )
    proxy_user_header: Annotated[str, AfterValidator(forms.header)] = Field(
        "",
        description="Header in which a proxy of FARM_TRUSTED_PROXIES, which must be set, names who is signed in; "
        "unset: none.",
    )
    oidc_issuer: Annotated[str, forms.url_of(*forms.OF_HTTP), AfterValidator(forms.issuer)] = Field(
        "", description="OpenID provider that signs people in, by its issuer's URL; needs the extra oidc; unset: none."
    )
    oidc_client_id: str = Field("", description="The farm's client id at that provider.")
    oidc_client_secret: str = Field("", repr=False, description="Its secret there; unset: a public client.")
    oidc_scopes: str = Field("openid email profile", description="Scopes that the provider is asked for.")
    oidc_owner_claim: str = Field(
        "email", min_length=1, description="Claim that names the owner; e-mail addresses must be verified."
    )
    oidc_role_claim: str = Field("groups", description="Claim whose values FARM_OIDC_ROLES names.")
    oidc_roles: Annotated[str, AfterValidator(forms.roles)] = Field(
        "",
        description="role:value pairs, comma-separated; who has no such value is refused; unset: FARM_SIGN_IN_ROLE.",
    )
    sign_in_role: Literal["viewer", "user", "operator"] = Field(
        "user", description="Role of people who sign in at a proxy or a provider: viewer, user or operator."
    )
    public_url: Annotated[str, forms.url_of(*forms.OF_HTTP)] = Field(
        "", description="Address that people open the farm at, for links in messages; unset: its own on loopback."
    )
    webhook_networks: Annotated[str, AfterValidator(forms.proxies)] = Field(
        "",
        description="Inside addresses that webhooks may go to: addresses and networks, comma-separated; unset: none.",
    )
    secret_key: str = Field(
        "", repr=False, description="Key that signs cookies; unset: made once and kept in FARM_HOME."
    )
    url: Annotated[str, forms.url_of(*forms.OF_HTTP)] = Field(
        "", description="Address of the API for clients; unset: the farm of FARM_HOME."
    )
    api_key: str = Field("", repr=False, description="Key that clients send.")
    api_threads: int = Field(16, ge=2, le=256, description="Requests that one API process answers at once.")
    requests_per_minute: int = Field(
        6000, ge=0, description="Requests of one key within a minute; beyond them the answer is 429; 0: any number."
    )
    max_streams: int = Field(500, ge=0, description="Event streams of one API process; beyond them pages poll.")
    door_seconds: float = Field(
        570, gt=0, description="Seconds that a request of another system's API waits for its pictures."
    )
    max_connections: int = Field(
        2000, ge=16, description="Connections of one API process; beyond them the longest silent ones are closed."
    )
    max_spool_mb: int = Field(
        1024, ge=1, description="Disk space for bodies and answers in transit, MiB, in the folder of TMPDIR."
    )
    header_seconds: float = Field(10, gt=0, description="Seconds that a client may take for the headers of a request.")
    stall_seconds: float = Field(
        30, gt=0, description="Seconds that a client may take for each 16 KiB of a body, and each 48 KiB of an answer."
    )
    body_seconds: float = Field(600, gt=0, description="Seconds that a client may take for a whole body.")
    idle_seconds: int = Field(
        75, ge=1, description="Seconds that an idle connection is kept; set it above a load balancer's own."
    )
    max_body_bytes: int = Field(
        2 * 2**20, ge=1024, description="Largest request body, bytes; a picture's file may come on top."
    )
    min_size: int = Field(64, ge=8, multiple_of=8, description="Smallest width or height, pixels.")
    max_size: int = Field(4096, ge=64, multiple_of=8, description="Largest width or height, pixels.")
    max_pixels: int = Field(
        2048 * 2048, ge=64 * 64, description="Largest area of a picture, pixels; also after a second pass."
    )
    max_steps: int = Field(150, ge=1, description="Largest number of steps.")
    max_cfg_scale: float = Field(30, ge=1, description="Highest CFG scale.")
    max_count: int = Field(1000, ge=1, description="Largest number of images of a job.")
    max_prompt_chars: int = Field(10_000, ge=1, description="Longest prompt, characters.")
    first_checkpoint: str = Field(
        "scenes-v1", description="Checkpoint of jobs that name none; if it is missing, the first by name."
    )
    max_upload_mb: int = Field(32, ge=1, le=1024, description="Largest file of a source picture, MiB.")
    max_upload_megapixels: int = Field(32, ge=1, le=80, description="Largest source picture, millions of pixels.")
    max_uploads_mb_per_owner: int = Field(4096, ge=1, description="Space for one owner's source pictures, MiB.")
    upload_days: int = Field(
        7, ge=1, le=36_500, description="Days that a source picture is kept after its last use, if no job needs it."
    )
    max_open_jobs_per_owner: int = Field(
        10_000, ge=1, description="Largest number of one owner's jobs that have not ended."
    )
    gpus: str = Field(
        "all",
        description="Cards of this machine's workers: all, 0,2, 0:1 (a MIG instance), GPU-… (the beginning of a UUID), "
        "cpu, or cpu:2 for two on the CPU.",
    )
    pools: Annotated[str, AfterValidator(forms.pools)] = Field(
        "default", description="Pools that this machine's workers serve, comma-separated."
    )
    slots: int = Field(0, ge=0, description="Images that a worker carries at once; 0: as many as suit its card.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Format of the weights: float32, bfloat16, float16; auto: float16 on a card, float32 on the CPU.",
    )
    preview: Literal["auto", "linear", "off"] = Field(
        "auto",
        description="How previews are made: auto (by a tiny decoder if one fits), linear (a colour a cell), off.",
    )
    preview_steps: int = Field(4, ge=0, description="Steps between two previews; 0: none.")
    resident_bytes: Quantity = Field(
        None,
        ge=0,
        description="Memory for the models that one worker keeps loaded, such as 12GB; auto: what its card offers less "
        "what images in flight need, on the CPU half of the memory.",
    )
    resident_checkpoints: int | None = Field(
        None, ge=1, description="Checkpoints that one worker keeps in memory at most; set FARM_RESIDENT_BYTES instead."
    )
    host_cache_bytes: Quantity = Field(
        None,
        ge=0,
        description="Host memory that keeps checkpoints ready for the cards, such as 8GB; 0: none; auto: a quarter of "
        "the memory.",
    )
    lease_seconds: float = Field(
        20, gt=0, description="Seconds that a worker may be silent before its images go to others."
    )
    beat_seconds: float = Field(
        5, gt=0, description="Seconds between two heartbeats of a worker, which renew its lease."
    )
    look_seconds: float = Field(
        1, gt=0, description="Seconds between two polls of an idle worker for images without a ticket."
    )
    hang_factor: float = Field(
        1,
        gt=0,
        description="Factor of the time that a load or a call of a network may take before its worker is killed.",
    )
    grace_seconds: float = Field(
        60, ge=0, description="Seconds that a stopping worker may take to finish its pictures."
    )
    rescan_seconds: float = Field(10, gt=0, description="Seconds between two scans of the models folder.")
    keep_days: int = Field(
        0, ge=0, le=36_500, description="Days after which a job that has ended is deleted; 0: never."
    )
    history_days: int = Field(90, ge=0, le=36_500, description="Days that history is kept; 0: for ever.")
    log_format: Literal["console", "json"] = Field("console", description="How logs are written: console or json.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged: debug, info, warning or error."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.beat_seconds * 2 > self.lease_seconds:
            raise ValueError("FARM_LEASE_SECONDS must be at least twice FARM_BEAT_SECONDS")
        if self.min_size > self.max_size:
            raise ValueError("FARM_MIN_SIZE must not be above FARM_MAX_SIZE")
        if self.min_size**2 > self.max_pixels:
            raise ValueError("FARM_MAX_PIXELS must have room for a square of FARM_MIN_SIZE")
        if self.oidc_issuer and not self.oidc_client_id:
            raise ValueError("FARM_OIDC_ISSUER needs FARM_OIDC_CLIENT_ID: what the provider calls this farm")
        if self.proxy_user_header and "trusted_proxies" not in self.model_fields_set:
            raise ValueError(
                "FARM_PROXY_USER_HEADER needs FARM_TRUSTED_PROXIES: who connects from there is believed to be anybody"
            )
        return self

    @property
    def limits(self) -> Limits:
        computed = {"urgent_owners", "of_owner"}
        amounts = {name: getattr(self, name) for name in Limits.model_fields if name not in computed}
        return Limits(**amounts, urgent_owners=self.urgent_names)

    @property
    def urgent_names(self) -> tuple[str, ...] | None:
        """The owners whose jobs may be urgent; None: everybody's."""
        names = tuple(filter(None, self.urgent_owners.split(",")))
        return None if not self.api_keys or EVERYBODY in names else names

    @property
    def signs_in(self) -> bool:
        """Whether somebody else than the farm signs people in."""
        return bool(self.proxy_user_header or self.oidc_issuer)

    @property
    def oidc_role_names(self) -> dict[str, frozenset[str]]:
        """The values of the provider's claim that give a role, by the roles."""
        return forms.role_names(self.oidc_roles)

    @property
    def admin_names(self) -> tuple[str, ...]:
        """The owners whose keys in FARM_API_KEYS are those of admins."""
        return tuple(filter(None, self.admins.split(",")))

    def limits_of(self, role: str) -> OwnerLimits:
        """Return the limits of each owner in a role; who may only look has none."""
        return of_role(getattr(self, f"{role}_limits", ""))

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The pools of this machine's workers."""
        return tuple(self.pools.split(","))

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The proxies that are believed."""
        return forms.networks(self.trusted_proxies)

    @property
    def base_url(self) -> str:
        """The beginning of links in messages; empty if no setting says how the farm is reached."""
        own = f"http://{self.host}:{self.port}" if self.is_loopback and self.port else ""
        return self.public_url.rstrip("/") or own

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database, embedded or not."""
        if self.database_url:
            return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
        return embedded_addresses.database_url(self.home)

    @property
    def redis(self) -> str:
        """The URL of Redis in the form of redis-py, embedded or not."""
        return self.redis_url or embedded_addresses.redis_url(self.home)

    @property
    def styles_path(self) -> Path:
        """The file of styles."""
        return Path(self.styles).expanduser().absolute() if self.styles else self.home / "styles.csv"

    @property
    def wildcards_path(self) -> Path:
        """The folder of wildcards, which may be missing."""
        return Path(self.wildcards).expanduser().absolute() if self.wildcards else self.home / "wildcards"

    @property
    def own_pictures(self) -> Path | None:
        """The folder of pictures that no other user is to see; None where FARM_STORAGE_URL names another storage."""
        return None if self.storage_url else self.home / "pictures"

    @property
    def storage(self) -> str:
        """The fsspec URL that pictures are stored under."""
        return self.storage_url or f"file://{self.own_pictures}"


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of `environ`. Raises SettingsError that names each variable which cannot be used."""
    given: dict[str, Any] = {
        name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX) and value
    }
    known = {name: value for name, value in given.items() if name in Settings.model_fields}
    try:
        return Settings.model_validate(known)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem) for problem in error.errors())) from None


def without_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without the farm's keys: for processes that read files of strangers and need none."""
    hidden = {f"{PREFIX}{name.upper()}" for name in _SECRETS}
    return {name: value for name, value in environ.items() if name not in hidden}


def unknown(environ: Mapping[str, str] = os.environ) -> dict[str, list[str]]:
    """Return the FARM_* variables that nobody reads, each with the names that may have been meant."""
    known = {name.upper() for name in Settings.model_fields}
    return {
        name: [f"{PREFIX}{close}" for close in nearest(bare, known, most=1)]
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and not name.startswith(_OF_TESTS)
        and (bare := name.removeprefix(PREFIX)) not in known
    }


def replaced(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return what to set instead of each variable in `environ` that still counts but has been replaced."""
    return [
        f"{PREFIX}{old.upper()} still counts, and {PREFIX}{new.upper()} takes its place: {advice}"
        for old, (new, advice) in _REPLACED.items()
        if environ.get(f"{PREFIX}{old.upper()}")
    ]


def _explain(problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    if not problem["loc"]:
        return wording.message(problem)
    name = str(problem["loc"][0])
    shown = _shown(name, str(problem["input"]))[:_LONGEST]
    schema = Settings.model_json_schema()["properties"][name]
    schema = schema.get("anyOf", [schema])[0]  # of a value that may also be unset
    is_ours = problem["type"] == "value_error" or schema.get("type") not in {"integer", "number", "string"}
    message = wording.message(problem) if is_ours else f"must be {wording.in_words(schema)}"
    return f"{PREFIX}{name.upper()}={shown}: {message} ({Settings.model_fields[name].description})"


def _shown(name: str, value: str) -> str:
    """Return a value as a message may show it: a screen, a log and a bug report keep no secret."""
    may_be_shown = name not in _WITH_PASSWORDS or _PLAIN.fullmatch(value) or re.search("://.*@", value)
    if name in _SECRETS or not may_be_shown:
        return "(hidden)"
    return repr(_PASSWORD.sub(lambda found: "://(hidden)@" if found[0].startswith(":") else "?(hidden)", value))
