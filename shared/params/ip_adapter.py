"""The parameters of one IP-Adapter, each with its facts.

The order of the fields stays as it is, because the digest of an idempotency key depends on it.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from shared.params.facts import Fact, Takes
from shared.params.fields import (
    OF_TWO,
    ActsAfter,
    ActsUntil,
    ImageEncoderName,
    IPAdapterName,
    Parameters,
    SourcePicture,
    Strength,
)

MOST_IP_ADAPTERS: Final = 4
MOST_PICTURES: Final = 4


class IPAdapterUnit(Parameters):
    """One IP-Adapter, and the pictures that it reads as a prompt."""

    model: Annotated[
        IPAdapterName,
        Takes("ip-adapter", role="ip_adapters"),
        Fact("Name or hash of the IP-Adapter", label="IP-Adapter"),
    ]
    pictures: Annotated[
        tuple[SourcePicture, ...],
        Field(strict=False, min_length=1, max_length=MOST_PICTURES),
        Fact("Uploads (their SHA-256) or data URLs, read together", label="Pictures"),
    ]
    weight: Annotated[Strength, Fact("How strongly the pictures count beside the prompt", slider=OF_TWO)] = 1.0
    start: ActsAfter = 0.0
    end: ActsUntil = 1.0
    image_encoder: Annotated[
        ImageEncoderName,
        Takes("image-encoder", role="image_encoders"),
        Fact("Name or hash of the image encoder that reads the pictures", means={"": "the usual one that fits"}),
    ] = ""
