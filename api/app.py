"""The Flask application: services joined, routes registered, every request guarded."""

from __future__ import annotations

from flask_openapi3 import OpenAPI

from api import languages, metrics
from api.compat.openai import errors as openai_errors
from api.compat.openai import routes as openai
from api.compat.replicate import routes as replicate
from api.compat.sdapi import beside as beside_sdapi
from api.compat.sdapi import errors as sdapi_errors
from api.compat.sdapi import routes as sdapi
from api.http import body, compression, later, problems
from api.http.openapi import INFO, SECURITY
from api.http.parameters import HashConverter, IdConverter
from api.pages import site
from api.programs import OPENAI, WEB_UI
from api.routes import (
    audit,
    catalogue,
    chores,
    controlnet,
    events,
    health,
    images,
    jobs,
    keys,
    limits,
    owners,
    pictures,
    png_info,
    presets,
    prompts,
    queue,
    reference,
    shares,
    sheets,
    sweeps,
    uploads,
    usage,
    webhooks,
    workers,
)
from api.routes import metrics as metrics_routes
from api.security import auth, origin, provider_sign_in
from api.security.proxies import Proxied
from api.services import EXTENSION, join
from api.socket import check_admins, check_provider
from shared.settings import Settings


def create_app(settings: Settings) -> OpenAPI:
    """Return the application of a farm with these settings. Asks no server; raises SettingsError."""
    check_admins(settings)
    check_provider(settings)
    app = OpenAPI(
        "api",
        info=INFO,
        security_schemes=SECURITY,
        doc_ui=False,
        validation_error_model=problems.Problem,
        validation_error_callback=problems.refuse_fields,
    )
    services = join(settings)
    app.extensions[EXTENSION] = services
    app.url_map.converters.update(id=IdConverter, hash=HashConverter)
    compression.init_app(app)
    metrics.init_app(app, services)
    origin.init_app(app, settings)
    app.wsgi_app = Proxied(app.wsgi_app, settings.proxies)  # type: ignore[method-assign]
    body.init_app(app, settings)  # before anything reads one
    auth.init_app(app, services)
    provider_sign_in.init_app(app, services)
    later.init_app(app)
    problems.init_app(app, {OPENAI: openai_errors.shaped} | dict.fromkeys(WEB_UI, sdapi_errors.shaped))
    languages.init_app(app)
    first = (jobs, sweeps, images, pictures, sheets, presets)
    others = (events, uploads, png_info, catalogue, workers, chores)
    accounts = (keys, usage, limits, owners, audit)
    for api in (*first, *others, prompts, controlnet, webhooks, shares, *accounts, queue, health):
        app.register_blueprint(api.blueprint)  # its part of the document is made when that is asked for
    app.register_blueprint(events.ends_blueprint)
    for door in (openai, replicate, sdapi, beside_sdapi):
        app.register_blueprint(door.blueprint)
    for plain in (reference, metrics_routes):
        app.register_blueprint(plain.blueprint)
    site.init_app(app)
    return app
