"""MONAI Label's web server, and what is answered otherwise than by it.

MONAI Label works on images in the loop that answers everybody, and turns every mistake of a request into an
internal error. Here such work is done in threads, mistakes are told in one line, and a site that somebody
looks at meanwhile cannot reach the server through the browser.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from monailabel.app import app
from monailabel.config import settings
from monailabel.endpoints import activelearning, batch_infer, datastore, infer, ohif, proxy, train
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.utils import tasks
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipelines.label.app import LabelApp, uploaded
from pipelines.label.going_on import SERVER
from pipelines.label.serve import HOSTS
from pipelines.label.studies import UnknownStudy
from pipelines.label.told import told

# What a request says besides its parameters, and what would name a file.
NO_PARAMETERS = {"image", "image_path", "label", "model", "model_filename", "session", "description"}
# Models change by training and by --rollback; there are no slides here.
CLOSED = (("/model/{model}", ["PUT", "DELETE"]), ("/infer/wsi/{model}", ["POST"]), ("/reload", ["POST"]))


def may(role: str) -> Any:
    """Who may ask, where MONAI Label is set up to know its users."""
    return Depends(RBAC(role))


USER, ANNOTATOR, ADMIN = (
    may(role)
    for role in (
        settings.MONAI_LABEL_AUTH_ROLE_USER,
        settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
        settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
    )
)
OHIF = Path(ohif.__file__).resolve().parent / "static" / "ohif"
# Plain functions, each of which the server runs in a thread.
own = APIRouter()
starting = threading.Lock()
os.environ[SERVER] = str(os.getpid())


def _parameters(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise HTTPException(400, f"expected params to be JSON, found: {error}") from error
    if not isinstance(found, dict) or NO_PARAMETERS & found.keys():
        raise HTTPException(400, f"expected params without {', '.join(sorted(NO_PARAMETERS))}, found {text}")
    return found


def _known(model: str) -> LabelApp:
    """The app, where it has the model."""
    instance = app_instance()
    if model not in instance.bundles:
        raise HTTPException(404, f"expected one of {', '.join(instance.bundles)}, found {model!r}")
    return instance


@own.post("/infer/{model}", dependencies=[USER])
def segment(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    label: Annotated[UploadFile | None, File()] = None,
    output: infer.ResultType | None = None,
) -> Any:
    """Segment a study, or an image that comes with the request."""
    instance, asked = _known(model), _parameters(params)
    if output == infer.ResultType.dicom_seg:
        seg = instance.infer_seg({**asked, "model": model, "image": image})
        background_tasks.add_task(seg.unlink)
        return FileResponse(seg, media_type="application/dicom", filename=seg.name)
    given = json.dumps(asked)
    mark = uploaded.set(bool(file or session_id))
    try:
        return infer.run_inference(background_tasks, model, image, session_id, given, file, label, output)
    finally:
        uploaded.reset(mark)


@own.post("/batch/infer/{model}", dependencies=[ADMIN])
def segment_many(
    model: str,
    images: batch_infer.BatchInferImageType = batch_infer.BatchInferImageType.IMAGES_ALL,
    params: dict[str, Any] | None = None,
) -> Any:
    """Segment all studies, or those with a label, or those without, in a process of its own."""
    _known(model)
    return batch_infer.run(model, images, params)


@own.post("/train/{model}", dependencies=[ADMIN])
def learn(model: str, params: dict[str, Any] | None = None, enqueue: bool = False) -> Any:
    """Start a training, in a process of its own, where there is enough to learn from and none is going on."""
    instance = _known(model)
    with starting:
        waiting = [one for one in tasks("train") if one["status"] in ("SUBMITTED", "RUNNING")]
        if any(one["request"]["model"] == model for one in waiting) or (waiting and not enqueue):
            raise HTTPException(
                429, f"expected no training to be going on, found {waiting[0]['request']['model']}"
            )
        instance.check_training(model, params or {})
        return train.run_model(model, params, enqueue=enqueue)


@own.post("/train/", dependencies=[ADMIN])
def learn_all(params: dict[str, Any] | None = None) -> Any:
    """Start the trainings of all bundles, one after the other; `params` are by bundle."""
    return {model: learn(model, (params or {}).get(model), enqueue=True) for model in app_instance().bundles}


@own.post("/activelearning/{strategy}")
def next_study(strategy: str, params: dict[str, Any] | None = None, user: User = USER) -> Any:
    """The study to annotate next."""
    return activelearning.sample(strategy, params, user.username)


@own.put("/datastore/label")
def submit(
    background_tasks: BackgroundTasks,
    image: str,
    label: Annotated[UploadFile, File()],
    params: Annotated[str, Form()] = "{}",
    tag: str = "final",
    user: User = ANNOTATOR,
) -> Any:
    """Keep a label."""
    return datastore.save_label(background_tasks, image, params, tag, label, user.username)


@own.put("/datastore/")
@own.put("/datastore/image")
def add(
    background_tasks: BackgroundTasks,
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: Annotated[str, Form()] = "{}",
    user: User = ANNOTATOR,
) -> Any:
    """Add a study."""
    return datastore.add_image(background_tasks, image, params, file, user.username)


@own.get("/ohif/{path:path}", include_in_schema=False, dependencies=[USER])
def viewer(path: str) -> FileResponse:
    """A file of OHIF, the viewer in the browser; MONAI Label finds none in a sub-folder, such as icons."""
    file = (OHIF / path).resolve()
    known = file.is_file() and file.is_relative_to(OHIF)
    return FileResponse(file if known else OHIF / "index.html")


@own.get("/proxy/dicom/{operation}/{path:path}", include_in_schema=False, dependencies=[USER])
def images(request: Request, operation: str, path: str) -> Any:
    """What OHIF asks of the PACS; MONAI Label lets everybody else wait meanwhile."""
    return asyncio.run(proxy.proxy_dicom(request, operation, path))


def closed() -> Any:
    """What MONAI Label would do, but this server does not."""
    raise HTTPException(403, "expected a request that this server answers; see `featherseg label --help`")


def say(request: Request, error: Exception) -> JSONResponse:
    """A mistake in a request as one line; what is a bug stays one."""
    message = error.msg if isinstance(error, MONAILabelException) else told(error)
    if message is None:
        raise error
    unknown = isinstance(error, UnknownStudy) or "NotFound" in type(error).__name__
    return JSONResponse({"detail": message}, 404 if unknown else 400)


for path, methods in CLOSED:
    own.add_api_route(path, closed, methods=methods)
app.router.routes[:0] = own.routes
for kind in (ValueError, RuntimeError, MONAILabelException):
    app.add_exception_handler(kind, say)
# MONAI Label lets every site that somebody looks at ask; no viewer that it serves is a site of its own.
app.user_middleware = [one for one in app.user_middleware if one.cls is not CORSMiddleware]
app.add_middleware(
    TrustedHostMiddleware, allowed_hosts=os.environ.get(HOSTS, "127.0.0.1,localhost").split(",")
)
