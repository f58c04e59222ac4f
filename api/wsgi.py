"""For WSGI servers of one's own: `gunicorn --threads 16 api.wsgi:app`. `farm api` starts `api/serve.py` instead."""

from __future__ import annotations

from api.app import create_app
from shared.settings import load

app = create_app(load())
