"""What the API says about itself."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from flask_openapi3 import OpenAPI
from pydantic import BaseModel

from api.http.openapi import answers, describe, section
from shared.params.render import RenderParams
from shared.params.scheduling import Scheduling
from shared.params.table import parameters
from shared.settings import Limits

MODELS = {
    "": "NewJob", "sampling": "Sampling", "guidance": "Guidance", "noise": "Noise", "refiner": "Refiner",
    "hires": "Hires", "img2img": "Img2Img", "img2img.mask": "Mask", "img2img.outpaint": "Outpaint",
    "original_size": "OriginalSize", "crop": "Crop", "target_size": "TargetSize",
    "controlnet": "ControlUnit", "ip_adapters": "IPAdapterUnit",
    "upscale": "Upscale", "upscale.pictures": "UpscalePicture", "upscale.faces": "FacesOfUpscale", "faces": "Faces",
}  # fmt: skip


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Flask:
    return standing_app


@pytest.fixture
def document(client) -> dict[str, Any]:
    return client.get("/openapi.json").get_json()


def test_no_two_bodies_have_one_name(document):
    described = document["components"]["schemas"]
    found: dict[str, list[str]] = {}
    left = [BaseModel]
    while left:
        for body in left.pop().__subclasses__():
            left.append(body)
            if body.__module__.startswith(("api.", "shared.")) and body.__name__ in described:
                found.setdefault(body.__name__, []).append(body.__module__)
    assert {name: modules for name, modules in found.items() if len({*modules}) > 1} == {}


def walk(node: object) -> list[dict[str, Any]]:
    """Return every object inside."""
    if isinstance(node, dict):
        return [node, *(inner for value in node.values() for inner in walk(value))]
    return [inner for value in node for inner in walk(value)] if isinstance(node, list) else []


def test_it_is_openapi_3_1(document):
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Stepfarm"


PLAIN_ERRORS = ("/v1/", "/sdapi/", "/internal/", "/controlnet/")  # in the shape of the programs that they stand in for


def test_every_route_of_the_api_is_in_it(app, document):
    routes = {
        (re.sub(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(("/api/", "/v1/", "/replicate/", "/sdapi/", "/internal/", "/controlnet/"))
        or rule.rule in {"/livez", "/readyz"}
    }
    told = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert told == routes


def test_every_reference_leads_somewhere(document):
    references = {node["$ref"] for node in walk(document) if isinstance(node.get("$ref"), str)}
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


def test_every_operation_says_what_it_does_and_how_errors_look(document):
    for path, methods in document["paths"].items():
        status = "400" if path.startswith("/v1/") else "422"
        shape = (
            "application/json"
            if path.startswith(("/v1/", "/sdapi/", "/internal/", "/controlnet/"))
            else "application/problem+json"
        )
        for operation in methods.values():
            assert operation["summary"]
            assert "<br" not in operation.get("description", "")
            assert shape in operation["responses"][status]["content"]
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_submission_takes_the_parameters(document):
    content = document["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    assert schema["properties"].keys() == RenderParams.model_fields.keys() | Scheduling.model_fields.keys() | {"sweep"}
    assert schema["properties"]["steps"]["default"] == 20
    assert "required" not in schema


def test_page_shows_every_path_and_loads_nothing_from_elsewhere(client, document):
    page = client.get("/reference").text
    assert all(path in page for path in document["paths"])
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)


def test_groups_of_parameters_are_described_field_by_field(document):
    schemas = document["components"]["schemas"]
    for name, parameter in parameters().items():
        group, _, field = name.rpartition(".")
        schema = schemas[MODELS[group]]["properties"][field]
        assert schema["description"] == parameter.description, name
    assert schemas["Hires"]["properties"]["scale"]["maximum"] == 8
    assert schemas["Mask"]["required"] == ["picture"]
    assert schemas["OriginalSize"]["required"] == schemas["TargetSize"]["required"] == ["width", "height"]
    assert "required" not in schemas["Crop"]


def test_upload_takes_a_form_or_the_file_itself(document):
    takes = document["paths"]["/api/v1/uploads"]["post"]["requestBody"]["content"]
    assert takes.keys() == {"multipart/form-data", "application/octet-stream"}
    answers = document["paths"]["/api/v1/uploads"]["post"]["responses"]
    assert {"201", "413", "422"} <= answers.keys()


def test_page_tells_of_every_parameter_with_what_it_accepts(client):
    page = client.get("/reference").text
    assert all(f"<code>{name}</code>" in page for name in parameters())
    assert "a number from 1 to 8" in page


def test_limits_and_choices_of_this_farm_are_told_where_a_program_looks_for_them(document):
    schemas = document["components"]["schemas"]
    job, hires = schemas["NewJob"]["properties"], schemas["Hires"]["properties"]
    assert job["width"]["anyOf"] == [{"const": 0}, {"minimum": 64, "maximum": 4096, "multipleOf": 8}]
    assert (job["steps"]["minimum"], job["steps"]["maximum"]) == (1, 150)
    assert (job["count"]["maximum"], job["cfg_scale"]["maximum"], job["prompt"]["maxLength"]) == (1000, 30, 10_000)
    assert "DPM++ 2M" in job["sampler"]["enum"]
    assert "karras" in job["schedule"]["enum"]
    assert hires["sampler"]["enum"][0] == ""
    assert hires["steps"]["maximum"] == 150
    assert "Latent" in hires["upscaler"]["anyOf"][0]["enum"]


def test_what_a_body_and_a_header_are_refused_for_is_told(document):
    submit = document["paths"]["/api/v1/jobs"]["post"]
    assert {"400", "409", "413", "415", "422"} <= submit["responses"].keys()
    (key,) = (one for one in submit["parameters"] if one["name"] == "Idempotency-Key")
    assert re.fullmatch(key["schema"]["pattern"], "a" * 200)
    assert not re.fullmatch(key["schema"]["pattern"], "a b")
    assert {"400", "413", "415"} <= document["paths"]["/api/v1/tokens"]["post"]["responses"].keys()
    assert "304" in document["paths"]["/api/v1/jobs/{job_id}"]["get"]["responses"]


def test_schemas_are_made_when_the_document_is_asked_for_and_not_while_the_api_starts():
    made = []

    class Body(BaseModel):
        @classmethod
        def model_json_schema(cls, **named: Any) -> dict[str, Any]:
            made.append(named["mode"])
            return super().model_json_schema(**named)

    blueprint = section("things", __name__, "/things")
    blueprint.get("/<int:number>", responses=answers(Body, 200))(lambda: "")
    app = OpenAPI("things", doc_ui=False)
    app.register_blueprint(blueprint)
    assert made == []
    document = describe(app, Limits())
    assert describe(app, Limits()) is document
    assert made == ["serialization"]
    assert document["tags"] == [{"name": "things"}]
    assert "200" in document["paths"]["/things/{number}"]["get"]["responses"]
    assert "Body" in document["components"]["schemas"]
