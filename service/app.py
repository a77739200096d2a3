"""The HTTP routes: what is found at which path, what anybody may see, and what needs a key."""

# Annotations are read as they stand, for those of the routes are local.

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from service.auth import TenantConfig
from service.door import Door
from service.errors import ApiError, answer_to, of_status
from service.openapi import CHAT, REFUSALS, describe
from service.traces import Traced
from skipvision.version import __version__

PAGE = Path(__file__).parent / "page"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Ready = Callable[[], Awaitable[dict[str, Any]]]
"""Tells `{"ready": bool, …}`."""


def build_app(door: Door, ready: Ready) -> FastAPI:
    """The application of one door."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with door.open():
            yield

    app = FastAPI(
        title="skipvision", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Questions about images, answered with fewer visual tokens. OpenAI's chat completions, and one "
        "field of our own.",
    )  # fmt: skip
    app.include_router(_open_routes(ready))
    app.include_router(_locked_routes(door))
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_swagger", "resources")]), name="docs")
    if door.tracer is not None:
        app.add_middleware(Traced, tracer=door.tracer)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(Exception, _refused)
    describe(app)
    return app


def _open_routes(ready: Ready) -> APIRouter:
    """What anybody may see."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=_headers(_PAGE_POLICY))

    @routes.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        html = get_swagger_ui_html(
            openapi_url="openapi.json", title="skipvision", swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css", swagger_favicon_url="docs/assets/favicon-32x32.png",
        )  # fmt: skip
        return HTMLResponse(html.body, headers=_headers(_DOCS_POLICY))

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the door answers; says nothing of the models."""
        return {"status": "ok"}

    @routes.get("/readyz", responses={503: {"description": "Some model has no replica yet."}})
    async def readyz() -> Response:
        """Whether every model has a replica, or may have none while nobody asks."""
        state = await ready()
        return JSONResponse(state, status_code=200 if state["ready"] else 503)

    return routes


def _locked_routes(door: Door) -> APIRouter:
    """What needs a key, where there are keys. Decided on the route that was taken, never on the path's text."""
    Tenant = Annotated[TenantConfig, Depends(door.tenant)]  # noqa: N806 -- a type
    routes = APIRouter(prefix="/v1", responses=REFUSALS)

    @routes.get("/models")
    async def models(tenant: Tenant) -> dict[str, Any]:
        """The models that may be asked."""
        return door.models(tenant)

    @routes.get("/models/{name:path}")
    async def model(name: str, tenant: Tenant) -> dict[str, Any]:
        """One of them."""
        return door.model(name, tenant)

    @routes.post("/chat/completions", openapi_extra=CHAT)
    async def chat_completions(request: Request, tenant: Tenant) -> Response:
        """Ask about images, or about none."""
        return await door.chat(request, tenant)

    return routes


def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        answer = of_status(error.status_code, str(error.detail))
        answer.headers |= dict(error.headers or {})
        return answer.response()
    if isinstance(error, RequestValidationError):
        return ApiError("a part of the path or of the query is not what it should be", code="invalid_value").response()
    return answer_to(error).response()


def _headers(policy: str) -> dict[str, str]:
    return {
        "content-security-policy": policy, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }  # fmt: skip
