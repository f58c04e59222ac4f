"""The parameters of one IP-Adapter, each with its facts.

The order of the fields stays as it is, because the digest of an idempotency key depends on it.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from shared.params.facts import Fact, Takes
from shared.params.fields import ImageEncoderName, IPAdapterName, Parameters, Share, SourcePicture

MOST_IP_ADAPTERS: Final = 4
MOST_PICTURES: Final = 4
_OF_ONE: Final = (0, 1, 0.05)


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
    weight: Annotated[
        float,
        Field(ge=0, le=2),
        Fact("How strongly the pictures count beside the prompt", slider=(0, 2, 0.05)),
    ] = 1.0
    start: Annotated[Share, Fact("Share of the steps after which it begins", slider=_OF_ONE)] = 0.0
    end: Annotated[Share, Fact("Share of the steps after which it ends", slider=_OF_ONE)] = 1.0
    image_encoder: Annotated[
        ImageEncoderName,
        Takes("image-encoder", role="image_encoders"),
        Fact("Name or hash of the image encoder that reads the pictures", means={"": "the usual one that fits"}),
    ] = ""
