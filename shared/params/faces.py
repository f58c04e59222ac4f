"""The parameters of restored faces, each with its facts.

The order of the fields stays as it is, because the digest of an idempotency key depends on it.
"""

from __future__ import annotations

from typing import Annotated, Final

from shared.params.codecs import HASH, NAME, NAME_AND_SHARE, RESTORER_FAMILY
from shared.params.facts import Fact, Key, Option, Takes
from shared.params.fields import OF_ONE, FaceRestorerName, Parameters, Share

CODEFORMER: Final = "CodeFormer"
"""The restorer that the fidelity changes."""
_RESTORER: Final = "Name or hash of the face restorer, such as GFPGANv1.4"
_STRENGTH: Final = "Share of the restored faces in the result"
_FIDELITY: Final = "How close CodeFormer stays to the picture: 0 paints the best face, 1 the most similar one"


class Faces(Parameters):
    """Faces that are restored after the last pass."""

    restorer: Annotated[
        FaceRestorerName,
        Takes("face-restorer", role="face_restorer"),
        Fact(
            _RESTORER,
            label="Face restorer",
            option=Option(
                "--faces",
                metavar="NAME[:STRENGTH]",
                beside=("strength",),
                codec=NAME_AND_SHARE,
                help="Restore faces by this face restorer, such as GFPGANv1.4:0.8.",
            ),
            keys=(
                Key("Face restoration", RESTORER_FAMILY),
                Key("Face restorer", NAME),
                Key("Face restorer hash", HASH),
            ),
        ),
    ]
    strength: Annotated[
        Share,
        Fact(_STRENGTH, label="Face strength", slider=OF_ONE, keys=(Key("Face strength"),), is_listed=True),
    ] = 1.0
    fidelity: Annotated[
        Share,
        Fact(_FIDELITY, label="CodeFormer fidelity", slider=OF_ONE, keys=(Key("CodeFormer weight"),)),
    ] = 0.5


class FacesOfUpscale(Faces):
    """Faces that are restored after a picture was enlarged."""

    restorer: Annotated[
        FaceRestorerName,
        Takes("face-restorer", role="face_restorer"),
        Fact(_RESTORER, keys=(Key("Postprocess face restorer", NAME),)),
    ]
    strength: Annotated[Share, Fact(_STRENGTH)] = 1.0
    fidelity: Annotated[Share, Fact(_FIDELITY)] = 0.5
