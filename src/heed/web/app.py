"""The application: routes, pages and shields over one store."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.staticfiles import StaticFiles

import heed
from heed.web import entry, follow, pages, problems, service, work
from heed.web.shield import Shield
from heed.web.site import Anyone, Site

PREFIX = "/api/v1"
_ABOUT = APIRouter(prefix=PREFIX, tags=["about"], dependencies=[Depends(Anyone())])


@_ABOUT.get("/healthz")
def healthy() -> dict[str, str]:
    """Whether the server answers."""
    return {"status": "ok"}


@_ABOUT.get("/version")
def version() -> dict[str, str]:
    """Which heed this is."""
    return {"heed": heed.__version__}


def build_app(site: Site) -> FastAPI:
    """Make the application over a store."""
    app = FastAPI(
        title="heed", version=heed.__version__, openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None, redoc_url=None, description="Label work and labels of one store.",
    )  # fmt: skip
    app.state.site = site
    problems.install(app)
    app.include_router(_ABOUT)
    for router in (entry.router, work.router, service.router, follow.router):
        app.include_router(router, prefix=PREFIX, responses=_refusals())
    if not site.api_only:
        app.include_router(pages.router)
        report = StaticFiles(directory=static_folder("heed.report"))
        app.mount("/static/report", report, name="report")
        app.mount("/static", StaticFiles(directory=static_folder()), name="static")
    app.add_middleware(Shield, hosts=site.hosts, secure=site.secure)
    return app


def static_folder(package: str = "heed.web") -> Path:
    """The folder of a package's style sheet, scripts and icon."""
    return Path(str(resources.files(package).joinpath("static")))


def _refusals() -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": {"type": "object"}}}
    codes = (400, 401, 403, 404, 409, 410, 413, 415, 421, 422, 429, 503)
    return {code: {"description": problems.TITLES[code], "content": content} for code in codes}
