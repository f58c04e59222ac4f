"""Who may ask for what: for every route the least role. A route that is not listed is an admin's.

A role opens a route; whose jobs it shows there is the use case's part: one's own, everybody's for an admin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.accounts.principal import Role

_OPEN: Final = """
    assets.file static
    entry.callback entry.provider entry.sign_in entry.submit_key
    health.livez health.readyz
    reference.document
    shares_pages.picture shares_pages.shown shares_pages.thumbnail
"""
_VIEWER: Final = """
    Replicate.list_models Replicate.model Replicate.prediction Replicate.predictions Replicate.stream Replicate.version
    Replicate.versions
    adapters.adapters
    catalogue.checkpoints catalogue.decoders catalogue.models catalogue.others catalogue.preview catalogue.samplers
    catalogue.schedules catalogue.vaes
    chores.chores
    compare_pages.compare
    entry.sign_out
    ends.ends events.events
    form.choices form.from_nothing form.new form.size form.strips
    images.archive images.film images.intermediate images.intermediates images.picture images.preview images.strip
    images.thumbnail
    inpaint.painting inpaint.room
    jobs.images jobs.job jobs.jobs
    jobs_pages.job jobs_pages.jobs
    keys.keys keys_pages.keys
    lessons_pages.lessons
    limits.limits limits_pages.limits
    made_pages.made
    metrics.metrics
    models_page.models
    pictures.archive pictures.facets pictures.picture pictures.pictures
    pictures_pages.archive pictures_pages.gallery pictures_pages.picture
    presets.preset presets.presets presets_pages.nothing
    prompts.styles
    reference.page
    shares.shares shares_pages.shares
    sheets.as_csv sheets.as_json sheets.picture
    uploads.picture
    usage.as_csv usage.usage usage_pages.usage
    workers.workers workers_page.workers
"""
_USER: Final = """
    Replicate.cancel Replicate.create Replicate.create_with_deployment Replicate.create_with_model Replicate.upload
    catalogue.rescan
    controlnet.preview
    form.from_picture form.send form.submit form.tell_sweep form.typed
    jobs.approve jobs.cancel jobs.cancel_image jobs.change jobs.delete jobs.hold jobs.release jobs.retry
    jobs.retry_image jobs.submit
    jobs_pages.approve jobs_pages.ask_delete jobs_pages.cancel jobs_pages.cancel_image jobs_pages.change
    jobs_pages.delete jobs_pages.hold jobs_pages.release jobs_pages.retry jobs_pages.retry_image jobs_pages.upscale
    keys.create keys.revoke keys_pages.create keys_pages.revoke
    lessons_pages.run
    pictures.act pictures.change pictures_pages.act pictures_pages.restore pictures_pages.restore_one
    png-info.png_info
    presets.drop presets.keep presets_pages.delete presets_pages.fill presets_pages.keep
    prompts.tokens
    remix.remix
    shares.make shares.revoke shares_pages.make shares_pages.revoke
    sweeps.preview
    uploads.upload
    webhooks.change webhooks.deliveries webhooks.delivery webhooks.drop webhooks.make webhooks.replay
    webhooks.replay_dead webhooks.rotate webhooks.test webhooks.webhook webhooks.webhooks
    webhooks_pages.change webhooks_pages.delete webhooks_pages.make webhooks_pages.replay webhooks_pages.rotate
    webhooks_pages.test webhooks_pages.webhook webhooks_pages.webhooks
"""
_OPERATOR: Final = """
    queue.cancel queue.hold queue.queue queue.release queue_page.cancel queue_page.hold queue_page.queue
    queue_page.release
    workers.drain workers.resume workers_page.drain workers_page.resume
"""
_ADMIN: Final = """
    audit.audit audit_pages.audit
    limits.change limits.clear limits.owners limits_pages.change limits_pages.clear
    owners.wipe
"""

_DOORS: Final = {
    "OpenAI Images": {Role.VIEWER: "list_models model", Role.USER: "edits generate"},
    "Stable Diffusion web UI": {
        Role.VIEWER: """
            cmd-flags embeddings extensions face-restorers get_options hypernetworks latent-upscale-modes loras memory
            progress prompt-styles realesrgan-models samplers schedulers script-info scripts sd-models sd-vae upscalers
        """,
        Role.USER: """
            extra_batch_images extra_single_image img2img interrogate interrupt png_info refresh-checkpoints
            refresh-embeddings refresh-loras refresh-vae reload-checkpoint set_options skip txt2img unload-checkpoint
        """,
    },
    "Stable Diffusion web UI, beside": {
        Role.VIEWER: """
            controlnet_control_types controlnet_model_list controlnet_module_list controlnet_settings controlnet_version
            pending_tasks ping task_progress
        """,
        Role.USER: "controlnet_detect",
    },
}

OPEN: Final = frozenset(_OPEN.split())
"""Routes that need no key."""

RULES: Final[Mapping[str, Role]] = {
    endpoint: role
    for role, endpoints in (
        (Role.VIEWER, _VIEWER),
        (Role.USER, _USER),
        (Role.OPERATOR, _OPERATOR),
        (Role.ADMIN, _ADMIN),
    )
    for endpoint in endpoints.split()
} | {
    f"{door}.{view}": role for door, views in _DOORS.items() for role, names in views.items() for view in names.split()
}
"""The least role by the endpoint of the route."""
