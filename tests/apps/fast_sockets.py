"""WebSockets as FastAPI and Starlette have them."""

from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.responses import JSONResponse

app = FastAPI()
gone: list[tuple[int, str]] = []


def token(websocket: WebSocket) -> str:
    said = websocket.query_params.get("token", "")
    if said == "bad":
        raise WebSocketException(code=1008, reason="no such token")
    return said


@app.get("/gone")
def told() -> list[tuple[int, str]]:
    return gone


@app.websocket("/echo")
async def echo(websocket: WebSocket, said: Annotated[str, Depends(token)]) -> None:
    await websocket.accept(subprotocol="json" if "json" in websocket["subprotocols"] else None)
    try:
        async for text in websocket.iter_text():
            await websocket.send_json({"said": text, "token": said})
        await websocket.receive()
    except (WebSocketDisconnect, RuntimeError) as error:
        gone.append((getattr(error, "code", 0), str(error)))


@app.websocket("/parting")
async def parting(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        await websocket.receive_bytes()
    except WebSocketDisconnect as error:
        gone.append((error.code, error.reason))


@app.websocket("/pay")
async def pay(websocket: WebSocket) -> None:
    await websocket.send_denial_response(JSONResponse({"pay": "first"}, status_code=402))
